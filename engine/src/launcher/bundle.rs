//! Bundles: the folders in which hooks and OCI runtimes find what a container is.

use std::{
    fs::{DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

use serde_json::Value;
use tripod_shim_protocol::{UserMapping, oci::bundle};

/// Makes the bundle of a container, with its specification: whole or not at all. That names the container's environment,
/// which is not everybody's to read. What acts for a pod with a user namespace is that one's root, and nobody in
/// particular out here: it comes in by its group.
pub(super) fn write(folder: &Path, spec: &Value, user: Option<UserMapping>) -> io::Result<()> {
    let group = user.map(|user| user.gids.host);
    let rights = |all: u32, group_too: u32| if group.is_some() { group_too } else { all };
    if let Some(all) = folder.parent() {
        DirBuilder::new().recursive(true).mode(0o711).create(all)?;
        // Earlier versions made it for root alone.
        std::fs::set_permissions(all, Permissions::from_mode(0o711))?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    DirBuilder::new().recursive(true).mode(0o755).create(folder.join(bundle::ROOTFS))?;
    let (file, draft) = (folder.join(bundle::CONFIG), folder.join("config.new"));
    let mut text = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    text.write_all(spec.to_string().as_bytes())?;
    for (opened, mode) in [(text, rights(0o600, 0o640)), (File::open(folder)?, rights(0o700, 0o710))] {
        fchown(&opened, None, group)?;
        opened.set_permissions(Permissions::from_mode(mode))?;
    }
    std::fs::rename(draft, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tripod_shim_protocol::IdRange;

    use super::*;

    #[test]
    fn a_bundle_is_the_roots_and_its_pods() {
        assert!(rustix::process::geteuid().is_root(), "this test gives a folder away and needs root");
        let folder = tempfile::tempdir().unwrap();
        let rights = |path: &Path| {
            let meta = std::fs::metadata(path).unwrap();
            (meta.uid(), meta.gid(), meta.mode() & 0o777)
        };
        let ids = IdRange { host: 70000, length: 10 };
        for (name, user, expected) in [
            ("plain", None, [(0, 0, 0o700), (0, 0, 0o600)]),
            ("mapped", Some(UserMapping { uids: ids, gids: ids }), [(0, 70000, 0o710), (0, 70000, 0o640)]),
        ] {
            let bundle = folder.path().join("bundles").join(name);
            write(&bundle, &serde_json::json!({ "a": 1 }), user).unwrap();
            assert_eq!([rights(&bundle), rights(&bundle.join("config.json"))], expected, "{name}");
            assert!(bundle.join("rootfs").is_dir());
        }
        assert_eq!(rights(&folder.path().join("bundles")).2, 0o711);
    }
}

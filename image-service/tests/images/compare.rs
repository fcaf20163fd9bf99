//! What two programs make of an image, down to the last attribute.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    process::Command,
};

use rustix::fs::{lgetxattr, llistxattr};
use serde_json::json;
use tripod_engine::ContainerId;
use tripod_image_service::Digest;

use super::{
    fake::Fake,
    fixture::{Image, OCI_MANIFEST},
    root::{Root, both, detached, visible},
};

/// Everything that can be told of a file, by path.
pub fn snapshot(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links: HashMap<u64, Vec<String>> = HashMap::new();
    let mut folders = vec![root.to_owned()];
    let mut all = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                folders.push(path.clone());
            }
            all.push(path);
        }
    }
    all.sort();
    for path in &all {
        let name = format!("/{}", path.strip_prefix(root).unwrap().display());
        links.entry(path.symlink_metadata().unwrap().ino()).or_default().push(name);
    }
    for path in all {
        // The root is what the descriptor of a mount leads to.
        let metadata = if path == root { path.metadata() } else { path.symlink_metadata() }.unwrap();
        let name = format!("/{}", path.strip_prefix(root).unwrap().display());
        let kind = metadata.file_type();
        let what = if kind.is_file() {
            let mut content = Vec::new();
            std::fs::File::open(&path).unwrap().read_to_end(&mut content).unwrap();
            format!("file {} bytes {}", content.len(), Digest::of(&content))
        } else if kind.is_symlink() {
            format!("link to {}", std::fs::read_link(&path).unwrap().display())
        } else if kind.is_dir() {
            "folder".to_owned()
        } else {
            format!("{} {:x}", if kind.is_fifo() { "fifo" } else { "device" }, metadata.rdev())
        };
        let mut attributes = Vec::new();
        let mut names = vec![0; 64 << 10];
        let count = llistxattr(&path, &mut names[..]).unwrap_or(0);
        for attribute in
            names[..count].split(|byte| *byte == 0).filter(|attribute| !attribute.is_empty() && path != root)
        {
            let mut value = vec![0; 64 << 10];
            let length = lgetxattr(&path, attribute, &mut value[..]).unwrap();
            attributes.push(format!("{}={:?}", attribute.escape_ascii(), &value[..length]));
        }
        attributes.sort();
        let same = links.get(&metadata.ino()).filter(|names| names.len() > 1).cloned().unwrap_or_default();
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        found.insert(name, format!("{what} {mode:o} {uid}:{gid} at {time} the same {same:?} {attributes:?}"));
    }
    found
}

/// Writes an image as an OCI layout with the tag `t`.
fn layout(image: &Image, folder: &Path) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for (digest, blob) in image.blobs() {
        std::fs::write(blobs.join(digest.hex()), blob).unwrap();
    }
    std::fs::write(blobs.join(Digest::of(&image.manifest).hex()), &image.manifest).unwrap();
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let manifest = json!({"mediaType": OCI_MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "t"}});
    std::fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .unwrap();
}

/// What `umoci unpack` makes of an image.
pub fn of_umoci(image: &Image) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    layout(image, &folder.path().join("image"));
    let unpacked = Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:t", folder.path().join("image").display()))
        .arg(folder.path().join("bundle"))
        .output()
        .expect("umoci cannot be run: install Debian's package umoci");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    snapshot(&folder.path().join("bundle/rootfs"))
}

/// What a container of the image gets from us, whichever provisioner makes it.
pub async fn of_ours(root: &Root, image: &Image) -> BTreeMap<String, String> {
    let fake = Fake::with(image, |_| None).await;
    let pulled = root.pull(&fake.name()).await.unwrap();
    let mut found = Vec::new();
    for provisioner in both(root) {
        let container = ContainerId::random();
        let mount = detached(provisioner.provision(&pulled.id, &container, None).await.unwrap());
        found.push(snapshot(&visible(&mount)));
        drop(mount);
        provisioner.destroy(&container).await.unwrap();
    }
    let (copied, mut mounted) = (found.pop().unwrap(), found.pop().unwrap());
    // The time of the root is that of the container's own folder.
    let time = mounted.insert("/".to_owned(), copied["/"].clone()).unwrap();
    assert_eq!(time.split(" at ").next(), copied["/"].split(" at ").next());
    assert_eq!(mounted.keys().collect::<Vec<_>>(), copied.keys().collect::<Vec<_>>(), "overlay, copy");
    for (path, mounted) in &mounted {
        assert_eq!(mounted, &copied[path], "{path}: overlay, copy");
    }
    mounted
}

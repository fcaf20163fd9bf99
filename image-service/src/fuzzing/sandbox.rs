//! A folder to unpack in, below a tree that must not change.

use std::{
    collections::BTreeMap,
    fs,
    io::BufRead,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    config::Limits,
    unpack::{Unpacked, unpack},
};

/// `canary` stands for the host, `work/root` is where a layer goes.
#[derive(Debug)]
pub(super) struct Sandbox {
    folder: PathBuf,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It may be nested deeper than there are descriptors.
        let emptied = crate::trash::Trash::new(self.folder.clone()).empty();
        let removed = emptied.and_then(|()| fs::remove_dir(&self.folder));
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

impl Sandbox {
    pub(super) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("tripod-fuzz-{}", crate::trash::unique()));
        let sandbox = Self { folder };
        for path in ["canary/dir", "work/root", "work/discard"] {
            fs::create_dir_all(sandbox.folder.join(path)).unwrap();
        }
        fs::write(sandbox.folder.join("canary/file"), "host").unwrap();
        std::os::unix::fs::symlink("file", sandbox.folder.join("canary/link")).unwrap();
        sandbox
    }

    /// The absolute path of the whole.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Unpacks an archive: nothing outside may change, limits must hold, and what is said of the layer must be so.
    /// Gives what comes after the archive, unless that was refused.
    pub(super) fn unpack<R: BufRead>(&self, archive: R, limits: &Limits) -> Option<R> {
        let (root, discard) = (self.folder.join("work/root"), self.folder.join("work/discard"));
        let before = self.outside();
        let result = unpack(archive, &root, &discard, limits);
        assert_eq!(before, self.outside(), "something outside has changed");
        for entry in fs::read_dir(&discard).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(name.to_str().is_some_and(|name| name.parse::<u64>().is_ok()), "{name:?} in the discard");
        }
        let found = found(&root);
        let bytes: u64 = found.values().filter(|metadata| metadata.is_file()).map(MetadataExt::size).max().unwrap_or(0);
        assert!(bytes <= limits.layer_bytes, "a file of {bytes} bytes");
        match result {
            Ok((unpacked, rest)) => {
                check(&unpacked, &root, &found, limits);
                Some(rest)
            }
            Err(error) => {
                assert!(error.to_string().len() < 4096);
                None
            }
        }
    }

    /// All that can be told of everything but what is unpacked. A change time tells of any change at all.
    fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                if path.ends_with("work/root") || path.ends_with("work/discard") {
                    all.insert(path, String::new());
                    continue;
                }
                let content = fs::read(&path).unwrap_or_default();
                let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
                let times = (metadata.mtime(), metadata.ctime(), metadata.ctime_nsec());
                let text = format!("{mode:o} {owner:?} {times:?} {} {content:?}", metadata.nlink());
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                all.insert(path, text);
            }
        }
        all
    }
}

/// All that was unpacked.
fn found(root: &Path) -> BTreeMap<PathBuf, fs::Metadata> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            all.insert(path, metadata);
        }
    }
    all
}

fn check(unpacked: &Unpacked, root: &Path, found: &BTreeMap<PathBuf, fs::Metadata>, limits: &Limits) {
    let Unpacked { implied, bytes, inodes, .. } = unpacked;
    assert!(found.len() as u64 <= *inodes, "{} files, and {inodes} counted", found.len());
    assert!(*inodes <= limits.layer_entries + 4096, "{inodes} files");
    assert!(*bytes <= limits.layer_bytes, "{bytes} bytes");
    for path in implied {
        assert!(found.get(&root.join(path)).is_some_and(fs::Metadata::is_dir), "{path:?} is no folder");
    }
    for path in found.keys() {
        let mut names = vec![0; 64 << 10];
        let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let ours = name == b"trusted.overlay.opaque" && found[path].is_dir();
            let theirs = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
                || name.starts_with(b"system.posix_acl_")
                || name == b"security.capability";
            assert!(ours || theirs, "{} on {}", name.escape_ascii(), path.display());
        }
    }
}

//! What is in a layer: an archive, made entry by entry, with whatever names an attacker would use.

use std::{path::Path, process::Command, sync::OnceLock};

use tar::{Builder, EntryType, Header};

/// An uncompressed layer.
pub struct Tree {
    archive: Builder<Vec<u8>>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tree({} bytes)", self.archive.get_ref().len())
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self { archive: Builder::new(Vec::new()) }
    }
}

impl Tree {
    /// A folder.
    #[must_use]
    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, name, mode, "", &[])
    }

    /// A file.
    #[must_use]
    pub fn file(self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(EntryType::Regular, name, mode, "", content.as_ref())
    }

    /// A file with an extended attribute, as PAX archives carry them.
    #[must_use]
    pub fn file_with(mut self, name: &str, mode: u32, content: &[u8], attribute: &str, value: &[u8]) -> Self {
        let key = format!("SCHILY.xattr.{attribute}");
        self.archive.append_pax_extensions([(key.as_str(), value)]).expect("an attribute");
        self.file(name, mode, content)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, 0o777, target, &[])
    }

    /// A hard link.
    #[must_use]
    pub fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, 0o644, target, &[])
    }

    /// Names go in as they are, up to 100 bytes.
    fn entry(mut self, kind: EntryType, name: &str, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        {
            let old = header.as_old_mut();
            old.name[..name.len()].copy_from_slice(name.as_bytes());
            old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.archive.append(&header, content).expect("an entry");
        self
    }

    /// The archive.
    pub fn bytes(self) -> Vec<u8> {
        self.archive.into_inner().expect("an archive")
    }
}

/// A small root filesystem around Debian's busybox, with a few users.
pub fn busybox() -> Tree {
    static PROGRAM: OnceLock<(Vec<u8>, Vec<String>)> = OnceLock::new();
    let (program, applets) = PROGRAM.get_or_init(|| {
        let path = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let path = path.expect("no busybox: run scripts/setup, or install Debian's busybox-static");
        let list = Command::new(path).arg("--list").output().expect("busybox --list");
        let applets = String::from_utf8(list.stdout).expect("names").lines().map(str::to_owned).collect();
        (std::fs::read(path).expect("read busybox"), applets)
    });
    let mut tree = Tree::default();
    for (folder, mode) in [("bin/", 0o755), ("etc/", 0o755), ("root/", 0o700), ("tmp/", 0o1777), ("var/", 0o755)] {
        tree = tree.dir(folder, mode);
    }
    tree = tree
        .file("bin/busybox", 0o755, program)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/tmp:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        )
        .file(
            "etc/group",
            0o644,
            "root:x:0:\nstaff:x:1001:\nextra:x:1002:ann\nmore:x:1003:ann,nobody\nnogroup:x:65534:\n",
        );
    // The program itself is there already.
    applets
        .iter()
        .filter(|name| *name != "busybox")
        .fold(tree, |tree, name| tree.symlink(&format!("bin/{name}"), "busybox"))
}

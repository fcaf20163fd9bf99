//! Everything in a tree, in one order: each folder before what is in it, names by their bytes.
//!
//! A tree may be deeper than a path can be long, so folders are entered one by one, with a descriptor of the one folder
//! that is being read.

use std::{
    ffi::{CStr, CString},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, flistxattr, fstat, lgetxattr, llistxattr, openat, readlinkat,
        statat,
    },
    io::Errno,
};

use super::{ContentHash, Kind, Node};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Something in the tree, while it is visited.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Relative to the tree's root, which has none.
    pub path: &'a [u8],
    folder: &'a OwnedFd,
    name: &'a CStr,
    stat: Stat,
    attributes: bool,
}

struct Level {
    /// The last one comes first.
    names: Vec<CString>,
    /// Device and inode, to see that the way up leads where it came from.
    identity: (u64, u64),
    /// Bytes of the path of this folder.
    length: usize,
}

/// Visits the root and all below it. `attributes` tells whether to ask for extended attributes.
pub(crate) fn walk(
    root: &Path,
    attributes: bool,
    mut visit: impl FnMut(&Found<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut folder = openat(CWD, root, FOLDER, Mode::empty())?;
    // What default attributes a folder above gives to all that is made in it cannot be told from here.
    let attributes = attributes || !list(magic(&folder, c".").as_c_str())?.is_empty();
    let mut path = Vec::new();
    visit(&Found { path: &path, folder: &folder, name: c".", stat: fstat(&folder)?, attributes })?;
    let mut levels = vec![Level { names: names(&folder)?, identity: identity(&fstat(&folder)?), length: 0 }];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.length);
        let Some(name) = level.names.pop() else {
            levels.pop();
            if let Some(above) = levels.last() {
                folder = openat(&folder, c"..", FOLDER, Mode::empty())?;
                if identity(&fstat(&folder)?) != above.identity {
                    return Err(io::Error::other("a folder was moved while it was read"));
                }
            }
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let stat = match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since the folder was read: for whoever compares it is missing.
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        visit(&Found { path: &path, folder: &folder, name: &name, stat, attributes })?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = openat(&folder, &name, FOLDER, Mode::empty())?;
            levels.push(Level { names: names(&below)?, identity: identity(&fstat(&below)?), length: path.len() });
            folder = below;
        }
    }
    Ok(())
}

impl Found<'_> {
    pub(crate) fn inode(&self) -> u64 {
        self.stat.st_ino
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &OwnedFd {
        self.folder
    }

    /// Its name there.
    pub(crate) fn name(&self) -> &CStr {
        self.name
    }

    /// Whether it has other names.
    pub(crate) fn is_linked(&self) -> bool {
        self.stat.st_nlink > 1 && FileType::from_raw_mode(self.stat.st_mode) != FileType::Directory
    }

    /// All that can be told without reading its content: the hash of a file is left 0.
    pub(crate) fn node(&self) -> io::Result<Node> {
        let stat = &self.stat;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File { size: u64::try_from(stat.st_size).unwrap_or(0), hash: 0 },
            FileType::Symlink => Kind::Link(readlinkat(self.folder, self.name, Vec::new())?.into_bytes()),
            FileType::CharacterDevice => Kind::CharDevice(stat.st_rdev),
            FileType::BlockDevice => Kind::BlockDevice(stat.st_rdev),
            FileType::Fifo => Kind::Fifo,
            _ => Kind::Socket,
        };
        let xattrs = if self.attributes { self.xattrs()? } else { Vec::new() };
        Ok(Node {
            path: self.path.to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            links: 0,
            xattrs,
        })
    }

    /// The hash of a file's content, read from it.
    pub(crate) fn hash(&self) -> io::Result<u128> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file = std::fs::File::from(openat(self.folder, self.name, flags, Mode::empty())?);
        let (mut hash, mut buffer) = (ContentHash::default(), vec![0; 128 << 10]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hash.finish()),
                Ok(count) => hash.update(&buffer[..count], false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = magic(self.folder, self.name);
        let mut found = Vec::new();
        for name in list(&path)? {
            let mut value = vec![0; 64 << 10];
            match lgetxattr(path.as_c_str(), name.as_slice(), &mut value[..]) {
                Ok(length) => value.truncate(length),
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(error.into()),
            }
            found.push((name, value));
        }
        found.sort();
        Ok(found)
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// A path for calls that take no descriptor.
fn magic(folder: &OwnedFd, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).unwrap_or_default()
}

/// Names of the attributes that layers can have. Labels of security modules are the host's.
fn list(path: &CStr) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 1 << 10];
    let length = loop {
        match llistxattr(path, &mut buffer[..]) {
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer.resize(64 << 10, 0),
            length => break length?,
        }
    };
    Ok(buffer[..length].split(|byte| *byte == 0).filter(|name| ours(name)).map(<[u8]>::to_vec).collect())
}

fn ours(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"system.posix_acl_")
        || name == b"security.capability"
}

/// Whether a file has none of those.
pub(crate) fn has_no_attributes(file: &OwnedFd) -> bool {
    let mut names = [0; 1 << 10];
    match flistxattr(file, &mut names[..]) {
        Ok(length) => !names[..length].split(|byte| *byte == 0).any(ours),
        Err(error) => error == Errno::NOTSUP,
    }
}

/// Names in a folder, the last by their bytes first.
pub(crate) fn names(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_by(|one, other| other.cmp(one));
    Ok(names)
}

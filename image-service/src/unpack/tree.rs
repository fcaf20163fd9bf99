//! Folders below a root, reached by descriptors only.
//!
//! No path can leave the root: the kernel resolves each one beneath it (`RESOLVE_BENEATH`). Symbolic links inside a
//! layer are followed only as far as they stay inside it, as builders of images with merged /usr rely on.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    ops::Bound,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    rc::Rc,
};

use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, ResolveFlags, XattrFlags, mkdirat, openat, openat2, readlink, renameat, setxattr,
        unlinkat,
    },
    io::Errno,
};

use super::{UnpackError, WHITEOUT};

const CACHED: usize = 128;
/// What the kernel takes, less what the store's own path in front may have.
const MAX_PATH: usize = 3840;
/// Bytes that may be remembered of a layer: enough for more than a million folders, and no bomb.
const MAX_HELD: usize = 256 << 20;
/// Bytes that a record takes beside its path, roughly.
const RECORD: usize = 128;

/// Splits a path in an archive into a clean path: no leading slash, no dots, no empty parts.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let refused = |why| Err(UnpackError::refused(path, why));
    if path.len() > MAX_PATH {
        return refused("its path is longer than 3840 bytes");
    }
    if path.contains(&0) {
        return refused("its path has a NUL");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    let mut below_whiteout = false;
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return refused("it climbs out of the layer");
                }
            }
            part if part.len() > 255 => return refused("a part of its path is longer than 255 bytes"),
            part => {
                below_whiteout |= parts.last().is_some_and(|parent| parent.starts_with(WHITEOUT));
                parts.push(part);
            }
        }
    }
    if below_whiteout {
        return refused("it lies in a whiteout");
    }
    Ok(parts.join(&b'/'))
}

/// The folder and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// All below a path, in a sorted set of paths.
pub(super) fn below(path: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let with = |byte| [path, &[byte]].concat();
    (Bound::Included(with(b'/')), Bound::Excluded(with(b'/' + 1)))
}

/// A folder in the tree.
#[derive(Debug)]
pub(super) struct Folder {
    /// `O_PATH`.
    pub descriptor: OwnedFd,
    /// Its path from the root, without symbolic links. What is remembered of files is remembered by such paths: by
    /// another name the same file would be remembered twice, once for what it is no more.
    pub path: Vec<u8>,
}

impl Folder {
    /// The path of something in it.
    pub(super) fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path, name].join(&b'/') }
    }
}

/// A folder that is being filled.
#[derive(Debug)]
pub(super) struct Tree {
    root: Rc<Folder>,
    /// Where folders go that later entries replace; deleting them takes time.
    discard: OwnedFd,
    discarded: u64,
    cache: HashMap<Vec<u8>, Rc<Folder>>,
    /// Folders made because an entry below them came without them.
    pub implied: BTreeSet<Vec<u8>>,
    /// Files that stand for the absence of what is below.
    pub whiteouts: BTreeSet<Vec<u8>>,
    /// The filesystem takes no such files: they are remembered only.
    pub no_whiteouts: bool,
    /// Folders that hide what is below them, and that the filesystem lets nobody mark.
    pub opaque: BTreeSet<Vec<u8>>,
    /// How many folders were made for want of an entry.
    pub made: u64,
    /// Bytes of what has to be remembered until the end.
    held: usize,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, discard: OwnedFd) -> Self {
        Self {
            root: Rc::new(Folder { descriptor: root, path: Vec::new() }),
            discard,
            discarded: 0,
            cache: HashMap::new(),
            implied: BTreeSet::new(),
            whiteouts: BTreeSet::new(),
            no_whiteouts: false,
            opaque: BTreeSet::new(),
            made: 0,
            held: 0,
        }
    }

    /// Makes sure that there is memory for remembering `bytes` of a path.
    pub(super) fn hold(&mut self, path: &[u8], bytes: usize) -> Result<(), UnpackError> {
        self.held += path.len() + bytes + RECORD;
        if self.held > MAX_HELD {
            return Err(UnpackError::refused(
                path,
                "the folders and whiteouts up to it have too many names and attributes",
            ));
        }
        Ok(())
    }

    /// A folder, made with its parents if it is absent.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<Folder>, UnpackError> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(dir) = self.cache.get(path) {
            return Ok(Rc::clone(dir));
        }
        match self.open(path) {
            Ok(folder) => Ok(self.keep(path, folder)),
            Err(absent @ (Errno::NOENT | Errno::NOTDIR)) => self.make_all(path, absent),
            Err(error) => Err(through(path, error)),
        }
    }

    fn keep(&mut self, path: &[u8], folder: Folder) -> Rc<Folder> {
        if self.cache.len() >= CACHED {
            self.cache.clear();
        }
        let folder = Rc::new(folder);
        self.cache.insert(path.to_vec(), Rc::clone(&folder));
        folder
    }

    /// Makes a folder and those above it that are missing. How deep they lie is the archive's to choose, so that there
    /// is no recursion.
    fn make_all(&mut self, path: &[u8], absent: Errno) -> Result<Rc<Folder>, UnpackError> {
        let mut missing = vec![(path, absent)];
        let mut above = split(path).0;
        let mut folder = loop {
            if above.is_empty() {
                break Rc::clone(&self.root);
            }
            match self.open(above) {
                Ok(folder) => break self.keep(above, folder),
                Err(absent @ (Errno::NOENT | Errno::NOTDIR)) => missing.push((above, absent)),
                Err(error) => return Err(through(above, error)),
            }
            above = split(above).0;
        };
        while let Some((path, absent)) = missing.pop() {
            let made = self.make(&folder, path, absent)?;
            folder = self.keep(path, made);
        }
        Ok(folder)
    }

    /// Makes a folder that could not be opened, for this reason.
    fn make(&mut self, parent: &Folder, path: &[u8], absent: Errno) -> Result<Folder, UnpackError> {
        let failed = |error| UnpackError::write("make the folder", path, error);
        let name = split(path).1;
        let real = parent.join(name);
        let whiteout = self.whiteouts.remove(&real);
        if whiteout {
            match unlinkat(&parent.descriptor, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        match mkdirat(&parent.descriptor, name, Mode::from(0o755)) {
            Ok(()) => self.made += 1,
            Err(Errno::EXIST) if absent == Errno::NOTDIR => return Err(through(path, absent)),
            Err(Errno::EXIST) => {
                return Err(UnpackError::refused(path, "it leads through a symbolic link that leads nowhere"));
            }
            Err(error) => return Err(failed(error)),
        }
        let folder = self.open(path).map_err(|error| through(path, error))?;
        if whiteout {
            // A new one in place of what was below, whose attributes do not count.
            self.hide_below(&folder)?;
        } else {
            self.hold(&real, 0)?;
            self.implied.insert(real);
        }
        Ok(folder)
    }

    /// A folder that is there.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Rc<Folder>, UnpackError> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(dir) = self.cache.get(path) {
            return Ok(Rc::clone(dir));
        }
        self.open(path).map(Rc::new).map_err(|error| through(path, error))
    }

    /// A folder whose attributes are to be changed, by its path without symbolic links.
    pub(super) fn open_whole(&self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.resolve(path, flags, ResolveFlags::NO_SYMLINKS).map_err(|error| through(path, error))
    }

    fn open(&self, path: &[u8]) -> Result<Folder, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.resolve(path, flags, ResolveFlags::NO_SYMLINKS) {
            Ok(descriptor) => Ok(Folder { descriptor, path: path.to_vec() }),
            Err(Errno::LOOP) => {
                let descriptor = self.resolve(path, flags, ResolveFlags::empty())?;
                let real = self.real_path(&descriptor)?;
                Ok(Folder { descriptor, path: real })
            }
            Err(error) => Err(error),
        }
    }

    fn resolve(&self, path: &[u8], flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV | more;
        loop {
            // EAGAIN: something was renamed on the host meanwhile, which makes the kernel start over.
            match openat2(&self.root.descriptor, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Where a folder is, from the root. There must be room for a name in it.
    fn real_path(&self, folder: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let read = |descriptor: &OwnedFd| readlink(OsStr::from_bytes(&magic(descriptor, b"")), Vec::new());
        let (root, folder) = (read(&self.root.descriptor)?, read(folder)?);
        let rest = folder.to_bytes().strip_prefix(root.to_bytes()).ok_or(Errno::XDEV)?;
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        if rest.len() > MAX_PATH - 256 { Err(Errno::NAMETOOLONG) } else { Ok(rest.to_vec()) }
    }

    /// Has a folder show nothing of what it has in the layers below.
    pub(super) fn hide_below(&mut self, folder: &Folder) -> Result<(), UnpackError> {
        match setxattr(magic(&folder.descriptor, b""), "trusted.overlay.opaque", b"y", XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOTSUP | Errno::PERM) => {
                self.hold(&folder.path, 0)?;
                self.opaque.insert(folder.path.clone());
                Ok(())
            }
            Err(error) => Err(UnpackError::write("hide what is below", &folder.path, error)),
        }
    }

    /// Takes away what is at a path, whatever it is.
    pub(super) fn remove(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        let failed = |error| UnpackError::write("replace", path, error);
        // What was reached through it is reached no more.
        self.cache.clear();
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                let target = format!("{}", self.discarded);
                self.discarded += 1;
                renameat(parent, name, &self.discard, target).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn through(path: &[u8], error: Errno) -> UnpackError {
    match error {
        Errno::XDEV | Errno::LOOP => UnpackError::refused(path, "it leads through a symbolic link out of the layer"),
        Errno::NOTDIR => UnpackError::refused(path, "it leads through something that is no folder"),
        Errno::NAMETOOLONG => UnpackError::refused(path, "its path is longer than 3840 bytes"),
        error => UnpackError::write("open the folder", path, error),
    }
}

/// A path by which the kernel finds `name` in a folder, for calls that take no descriptor.
pub(crate) fn magic(dir: &impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// Opens a folder of the host, for use as a root.
pub(super) fn open_root(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
}

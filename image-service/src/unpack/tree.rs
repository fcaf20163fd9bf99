//! Folders below a root, reached by descriptors only.
//!
//! No path can leave the root: the kernel resolves each one beneath it (`RESOLVE_BENEATH`). Symbolic links inside a
//! layer are followed only as far as they stay inside it, as builders of images with merged /usr rely on.

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, renameat, unlinkat},
    io::Errno,
};

use super::UnpackError;

const CACHED: usize = 128;

/// Splits a path in an archive into a clean path: no leading slash, no dots, no empty parts.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let refused = |why| Err(UnpackError::refused(path, why));
    if path.len() > 4096 {
        return refused("its path is longer than 4096 bytes");
    }
    if path.contains(&0) {
        return refused("its path has a NUL");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return refused("it climbs out of the layer");
                }
            }
            part if part.len() > 255 => return refused("a part of its path is longer than 255 bytes"),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// The folder and the name in it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A folder that is being filled.
#[derive(Debug)]
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// Where folders go that later entries replace; deleting them takes time.
    discard: OwnedFd,
    discarded: u64,
    cache: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Folders made because an entry below them came without them.
    pub implied: BTreeSet<Vec<u8>>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, discard: OwnedFd) -> Self {
        Self { root: Rc::new(root), discard, discarded: 0, cache: HashMap::new(), implied: BTreeSet::new() }
    }

    /// A descriptor (`O_PATH`) of a folder, made with its parents if it is absent.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(dir) = self.cache.get(path) {
            return Ok(Rc::clone(dir));
        }
        let dir = match self.open(path) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => {
                let (parent, name) = split(path);
                let parent = self.dir(parent)?;
                match mkdirat(&*parent, name, Mode::from(0o755)) {
                    Ok(()) => drop(self.implied.insert(path.to_vec())),
                    Err(Errno::EXIST) => {
                        return Err(UnpackError::refused(path, "it leads through a symbolic link that leads nowhere"));
                    }
                    Err(error) => return Err(UnpackError::write("make the folder", path, error)),
                }
                self.open(path).map_err(|error| through(path, error))?
            }
            Err(error) => return Err(through(path, error)),
        };
        if self.cache.len() >= CACHED {
            self.cache.clear();
        }
        let dir = Rc::new(dir);
        self.cache.insert(path.to_vec(), Rc::clone(&dir));
        Ok(dir)
    }

    /// A folder that is there.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(dir) = self.cache.get(path) {
            return Ok(Rc::clone(dir));
        }
        self.open(path).map(Rc::new).map_err(|error| through(path, error))
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        loop {
            // EAGAIN: something was renamed on the host meanwhile, which makes the kernel start over.
            match openat2(&*self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
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
        error => UnpackError::write("open the folder", path, error),
    }
}

/// A path by which the kernel finds `name` in a folder, for calls that take no descriptor.
pub(super) fn magic(dir: &impl AsFd, name: &[u8]) -> Vec<u8> {
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

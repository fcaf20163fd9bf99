//! Paths inside a root directory that somebody else controls. Every step is resolved by the kernel with
//! `RESOLVE_IN_ROOT` (Linux 5.6): absolute symlinks start at the root, `..` ends there, magic links are not followed.
//! Nothing here ever reaches a file outside the root, whoever changes it meanwhile.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat2, readlinkat, unlinkat},
    io::Errno,
};

/// The most symlinks that are followed while a path is made; the kernel's own limit for one look-up.
const MAX_LINKS: usize = 40;

/// How often a look-up that renames elsewhere have disturbed is tried again. Whoever renames all the time makes that a
/// matter of seconds, but not more.
const PATIENCE: usize = 1 << 20;

/// Opens `path` below `root` with `flags` and `mode` as in open(2).
pub fn open(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    Ok(look_up(root.as_fd(), path, flags, mode, ResolveFlags::empty())?)
}

fn look_up(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = relative(path);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
    for _ in 0..PATIENCE {
        match openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            // The kernel gives up when a rename elsewhere on the system could have led out of the root.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens `path` below `root` as a mere handle (`O_PATH`), for the calls that take one.
pub fn handle(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH, Mode::empty())
}

/// A directory handle for `path` below `root`; what is missing on the way is made with `mode` (less the umask).
/// Symlinks are followed inside the root, dangling ones by making what they point to.
pub fn mkdir_all(root: impl AsFd, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    // Nearly always it exists, and one call says so.
    match open(&root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
        Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
        other => return other,
    }
    directory(make(root.as_fd(), path, mode, FileType::Directory, MAX_LINKS)?)
}

/// The same, but a symlink anywhere on the way is an error (`ELOOP`): for places that mean what they are called.
pub fn mkdir_plain(root: impl AsFd, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    match look_up(root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOENT) => directory(make(root.as_fd(), path, mode, FileType::Directory, 0)?),
        other => Ok(other?),
    }
}

/// A handle for `path` below `root`, which is made as an empty regular file (mode 0644 less the umask), with the
/// directories on the way (0755), if nothing is there. Symlinks as in [`mkdir_all`].
pub fn touch(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    match handle(&root, path) {
        Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
        other => return other,
    }
    make(root.as_fd(), path, Mode::from_raw_mode(0o755), FileType::RegularFile, MAX_LINKS)
}

/// The same for a last name that is not followed: a symlink of that name, even a dangling one, is taken away.
pub fn touch_over_link(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let (dir, name) = parent(root, path)?;
    match readlinkat(&dir, name, Vec::new()) {
        Ok(_) => unlinkat(&dir, name, AtFlags::empty())?,
        // No symlink (EINVAL), or nothing.
        Err(Errno::INVAL | Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let made = open_or_make(&dir, name, Mode::from_raw_mode(0o755), FileType::RegularFile)?;
    // Whoever can write there may have been quicker.
    if is_symlink(&made)? { Err(Errno::LOOP.into()) } else { Ok(made) }
}

/// The same without following any symlink: one on the way or in the end is an error (`ELOOP`).
pub fn touch_plain(root: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    make(root.as_fd(), path, Mode::from_raw_mode(0o755), FileType::RegularFile, 0)
}

/// Walks `path` name by name, making directories, and for the last name a `last`, where nothing is. At most `links`
/// symlinks are followed.
fn make(root: BorrowedFd<'_>, path: &Path, mode: Mode, last: FileType, mut links: usize) -> io::Result<OwnedFd> {
    let mut done = PathBuf::from("/");
    let mut left = reversed(path);
    let mut here = handle(root, &done)?;
    while let Some(name) = left.pop() {
        if name.as_os_str() == ".." {
            done.pop();
            here = handle(root, &done)?;
            continue;
        }
        let kind = if left.is_empty() { last } else { FileType::Directory };
        let next = open_or_make(&here, &name, mode, kind)?;
        if is_symlink(&next)? {
            links = links.checked_sub(1).ok_or(Errno::LOOP)?;
            let target = readlinkat(&next, "", Vec::new())?;
            let target = Path::new(OsStr::from_bytes(target.as_bytes()));
            if target.is_absolute() {
                done = PathBuf::from("/");
                here = handle(root, &done)?;
            }
            left.extend(reversed(target));
            continue;
        }
        done.push(&name);
        here = next;
    }
    Ok(here)
}

/// The directory that holds `path`'s last component (made if absent, 0755), and that component.
pub fn parent(root: impl AsFd, path: &Path) -> io::Result<(OwnedFd, &Path)> {
    let (parent, name) = split(path)?;
    Ok((mkdir_all(root, parent, Mode::from_raw_mode(0o755))?, name))
}

fn open_or_make(dir: &OwnedFd, name: &Path, mode: Mode, kind: FileType) -> io::Result<OwnedFd> {
    let look =
        || openat2(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH);
    match look() {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let made = match kind {
        FileType::Directory => mkdirat(dir, name, mode),
        kind => mknodat(dir, name, kind, Mode::from_raw_mode(0o644), 0),
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(look()?),
        Err(e) => Err(e.into()),
    }
}

fn directory(made: OwnedFd) -> io::Result<OwnedFd> {
    if is_dir(&made)? { Ok(made) } else { Err(Errno::NOTDIR.into()) }
}

fn is_symlink(path: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(path)?.st_mode) == FileType::Symlink)
}

fn relative(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn reversed(path: &Path) -> Vec<PathBuf> {
    let names = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|c| PathBuf::from(c.as_os_str())).collect()
}

fn split(path: &Path) -> io::Result<(&Path, &Path)> {
    match path.file_name() {
        Some(name) => Ok((path.parent().unwrap_or(Path::new("/")), Path::new(name))),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no last component")),
    }
}

/// Whether `path` (a handle) is a directory.
pub fn is_dir(path: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::statat(path, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests;

//! Entries of an archive become files.
//!
//! What folders get (mode, owner, attributes, times) is set at the end: until then a folder's set-group-ID bit or
//! default ACL would leak into files made in it, and each new file would change its time.

mod file;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, futimens, linkat,
        lsetxattr, makedev, mkdirat, mknodat, symlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    Marks, RootAttributes, UnpackError, Unpacked, WHITEOUT,
    archive::{Archive, Entry, Kind},
    attributes::{Attributes, allowed, gid, ignore_unsupported, times, uid},
    tree::{Tree, below, clean, magic, open_root, split},
};
use crate::{config::Limits, objects::Objects, record::ContentHash, room::Watch, skeleton::Tap};

const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept in layers for itself.
const AUFS: &[u8] = b".wh..wh.";

struct Extraction<'a, R> {
    archive: Archive<Tap<R>>,
    tree: Tree,
    limits: &'a Limits,
    umask: u32,
    folders: BTreeMap<Vec<u8>, Attributes>,
    result: Unpacked,
    /// Of the content that is being written.
    hash: ContentHash,
    /// Files that other layers have.
    objects: Option<&'a Objects>,
    /// Whether there is room for what is written.
    room: Option<Watch<'a>>,
    /// What is read of them.
    buffer: Vec<u8>,
}

/// Unpacks an archive into `root`. Folders that the archive itself replaces are moved to `discard`. Gives back the
/// stream, which may have more after the archive's end.
#[cfg(any(test, fuzzing))]
pub(crate) fn unpack<R: BufRead>(
    stream: R,
    root: &Path,
    discard: &Path,
    limits: &Limits,
) -> Result<(Unpacked, R), UnpackError> {
    let (unpacked, stream) = unpack_recorded(Tap::silent(stream), root, discard, limits, None)?;
    Ok((unpacked, stream.into_inner()))
}

/// As [`unpack`], with a record of what becomes no file. What is among a store's objects is linked rather than written,
/// and its disk is left some room.
pub(crate) fn unpack_recorded<R: BufRead>(
    stream: Tap<R>,
    root: &Path,
    discard: &Path,
    limits: &Limits,
    store: Option<(&Objects, Watch<'_>)>,
) -> Result<(Unpacked, Tap<R>), UnpackError> {
    let (objects, room) = store.unzip();
    let open = |path: &Path| {
        open_root(path).map_err(|error| UnpackError::write("open", path.as_os_str().as_encoded_bytes(), error))
    };
    let mut extraction = Extraction {
        archive: Archive::new(stream),
        tree: Tree::new(open(root)?, open(discard)?),
        limits,
        umask: umask(),
        folders: BTreeMap::new(),
        result: Unpacked::default(),
        hash: ContentHash::default(),
        objects,
        room,
        buffer: Vec::new(),
    };
    let outcome = extraction.run();
    match outcome {
        Ok(()) => Ok((extraction.result, extraction.archive.into_inner())),
        Err(UnpackError::Limit { what: "bytes", .. }) => {
            Err(UnpackError::Limit { what: "bytes", limit: limits.layer_bytes })
        }
        Err(error) => Err(error),
    }
}

/// The process's umask, without changing it.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}

impl<R: BufRead> Extraction<'_, R> {
    fn run(&mut self) -> Result<(), UnpackError> {
        while let Some(entry) = self.archive.next()? {
            self.result.inodes += 1;
            if self.result.inodes + self.tree.made > self.limits.layer_entries {
                return Err(UnpackError::Limit { what: "entries", limit: self.limits.layer_entries });
            }
            self.result.contents.attributes |= !entry.xattrs.is_empty();
            self.entry(&entry)?;
        }
        self.result.inodes += self.tree.made;
        self.result.disk_bytes += self.tree.made * 4096;
        let implied = std::mem::take(&mut self.tree.implied);
        self.result.implied = implied.into_iter().filter_map(|path| String::from_utf8(path).ok()).collect();
        self.result.marks = self.marks()?;
        self.finish_folders()
    }

    /// What the layer hides and its files do not tell.
    fn marks(&mut self) -> Result<Marks, UnpackError> {
        let words = |paths: &BTreeSet<Vec<u8>>| {
            let word = |path: &Vec<u8>| {
                let why =
                    "this filesystem holds no whiteouts, and one whose name is not UTF-8 cannot be kept elsewhere";
                String::from_utf8(path.clone()).map_err(|_| UnpackError::refused(path, why))
            };
            paths.iter().map(word).collect::<Result<Vec<_>, _>>()
        };
        let whiteouts = if self.tree.no_whiteouts { words(&self.tree.whiteouts)? } else { Vec::new() };
        Ok(Marks { whiteouts, opaque: words(&self.tree.opaque)? })
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let path = clean(&entry.path)?;
        if path.is_empty() {
            return match entry.kind {
                Kind::Directory => {
                    let Entry { mode, uid, gid, .. } = *entry;
                    self.result.root = Some(RootAttributes { mode, uid, gid });
                    self.remember(path, entry)
                }
                _ => Err(UnpackError::refused(&entry.path, "it replaces the layer's root")),
            };
        }
        let (folder, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            return self.whiteout(entry, folder, name);
        }
        let parent = self.tree.dir(folder)?;
        let real = if parent.path == folder { None } else { Some(parent.join(name)) };
        let (parent, path) = (&parent.descriptor, real.as_deref().unwrap_or(&path));
        match &entry.kind {
            Kind::Directory => self.directory(parent, name, path, entry),
            Kind::HardLink => self.hard_link(parent, name, path, entry),
            Kind::File => self.file(parent, name, path, entry, None),
            Kind::Sparse(regions, whole) => self.file(parent, name, path, entry, Some((regions, *whole))),
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(UnpackError::refused(&entry.path, "a symbolic link has no valid target"));
                }
                self.place(parent, name, path, |parent| symlinkat(entry.link.as_slice(), parent, name))?;
                self.node(parent, name, path, entry)
            }
            Kind::CharDevice(..) | Kind::BlockDevice(..) | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::CharDevice(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
                    Kind::BlockDevice(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
                    _ => (FileType::Fifo, 0),
                };
                let mode = Mode::from(entry.mode & 0o7777);
                self.place(parent, name, path, |parent| mknodat(parent, name, kind, mode, device))?;
                self.node(parent, name, path, entry)
            }
        }
    }

    /// Notes what a folder is to get at the end.
    fn remember(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), UnpackError> {
        let attributes = Attributes::of(entry);
        self.tree.hold(&path, attributes.size())?;
        self.folders.insert(path, attributes);
        Ok(())
    }

    /// Makes something new; what was there before gives way, because the last entry of a name counts.
    fn place<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        make: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let made = match make(parent) {
            Err(Errno::EXIST) => {
                self.forget(path);
                self.tree.remove(parent, name, path)?;
                make(parent)
            }
            made => made,
        };
        self.tree.whiteouts.remove(path);
        made.map_err(|error| UnpackError::write("make", path, error))
    }

    /// Drops what was to be remembered of a path and all below it.
    fn forget(&mut self, path: &[u8]) {
        self.folders.remove(path);
        self.tree.implied.remove(path);
        self.tree.opaque.remove(path);
        for path in self.folders.range(below(path)).map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.folders.remove(&path);
        }
        for set in [&mut self.tree.implied, &mut self.tree.whiteouts, &mut self.tree.opaque] {
            for path in set.range(below(path)).cloned().collect::<Vec<_>>() {
                set.remove(&path);
            }
        }
    }

    fn directory(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let was_whiteout = self.tree.whiteouts.remove(path);
        if was_whiteout || !is_directory(parent, name) {
            self.place(parent, name, path, |parent| mkdirat(parent, name, Mode::from(0o755)))?;
            self.result.disk_bytes += 4096;
        }
        if was_whiteout {
            self.make_opaque(path)?;
        }
        self.tree.implied.remove(path);
        self.remember(path.to_vec(), entry)
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let target = clean(&entry.link)?;
        let (folder, file) = split(&target);
        let absent = || UnpackError::refused(&entry.path, "a hard link leads to a file that the layer does not have");
        let folder = match self.tree.existing(folder) {
            Err(UnpackError::Write { source, .. }) if source.kind() == ErrorKind::NotFound => return Err(absent()),
            folder => folder?,
        };
        let target = folder.join(file);
        if target == path {
            return Err(UnpackError::refused(&entry.path, "a hard link leads to itself"));
        }
        if file.is_empty() || is_directory(&folder.descriptor, file) {
            return Err(UnpackError::refused(&entry.path, "a hard link leads to a folder"));
        }
        if self.tree.whiteouts.contains(&target) {
            return Err(absent());
        }
        self.make_own(&folder.descriptor, file, &target)?;
        // Replacing a folder takes what is in it along, which may be the target.
        let made =
            self.place(parent, name, path, |parent| linkat(&folder.descriptor, file, parent, name, AtFlags::empty()));
        match made {
            Err(UnpackError::Write { source, .. }) if source.kind() == ErrorKind::NotFound => Err(absent()),
            made => made,
        }
    }

    /// Owner, mode, attributes and time of what cannot be opened.
    fn node(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let failed = |step| move |error| UnpackError::write(step, path, error);
        if entry.uid != 0 || entry.gid != 0 {
            chownat(parent, name, uid(entry), gid(entry), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("set the owner of"))?;
        }
        if entry.kind != Kind::Symlink {
            chmodat(parent, name, Mode::from(entry.mode), AtFlags::empty()).map_err(failed("set the mode of"))?;
        }
        for (attribute, value) in allowed(entry) {
            let set = lsetxattr(magic(parent, name), attribute, value, XattrFlags::empty());
            // User attributes cannot be on anything but files and folders.
            if set != Err(Errno::PERM) {
                ignore_unsupported(set).map_err(failed("set an extended attribute of"))?;
            }
        }
        utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the time of"))
    }

    /// `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` hides all that a folder has there.
    fn whiteout(&mut self, entry: &Entry, folder: &[u8], name: &[u8]) -> Result<(), UnpackError> {
        // Some are attributes of folders, now or when a folder is made in their place.
        self.result.contents.attributes = true;
        if name == OPAQUE {
            let folder = self.tree.dir(folder)?;
            return self.make_opaque(&folder.path);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::refused(&entry.path, "it is a whiteout of no name"));
        }
        let parent = self.tree.dir(folder)?;
        let path = parent.join(hidden);
        let made = match mknodat(&parent.descriptor, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // That of another overlay takes none, for one.
            Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS | Errno::INVAL) => {
                self.tree.no_whiteouts = true;
                Ok(())
            }
            made => made,
        };
        match made {
            Ok(()) => {
                self.tree.hold(&path, 0)?;
                self.tree.whiteouts.insert(path);
                Ok(())
            }
            // The layer hides what was below and has something new there: a folder must not let the old shine through.
            Err(Errno::EXIST) if is_directory(&parent.descriptor, hidden) => {
                self.tree.implied.remove(&path);
                self.make_opaque(&path)
            }
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(UnpackError::write("make the whiteout", &path, error)),
        }
    }

    fn make_opaque(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        if path.is_empty() {
            self.result.opaque = true;
            return Ok(());
        }
        let folder = self.tree.existing(path)?;
        self.tree.hide_below(&folder)
    }

    fn finish_folders(&mut self) -> Result<(), UnpackError> {
        for (path, folder) in &std::mem::take(&mut self.folders) {
            let failed = |step| move |error| UnpackError::write(step, path, error);
            // By no path: a link in its place would be followed by chmod.
            let descriptor = self.tree.open_whole(path)?;
            if folder.uid != 0 || folder.gid != 0 {
                fchown(&descriptor, Some(Uid::from_raw(folder.uid)), Some(Gid::from_raw(folder.gid)))
                    .map_err(failed("set the owner of"))?;
            }
            if folder.mode != 0o755 || self.umask & 0o755 != 0 {
                fchmod(&descriptor, Mode::from(folder.mode)).map_err(failed("set the mode of"))?;
            }
            for (attribute, value) in &folder.xattrs {
                ignore_unsupported(fsetxattr(&descriptor, attribute.as_slice(), value, XattrFlags::empty()))
                    .map_err(failed("set an extended attribute of"))?;
            }
            futimens(&descriptor, &folder.times).map_err(failed("set the time of"))?;
        }
        Ok(())
    }
}

fn is_directory(parent: &impl AsFd, name: &[u8]) -> bool {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

//! Copies of files: content, owner, mode, attributes, times, and which of them are links of one another.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, copy_file_range, fstat, ftruncate, ioctl_ficlone, lgetxattr, linkat, llistxattr, lsetxattr, mkdirat,
        mknodat, openat, readlinkat, seek, symlinkat, utimensat,
    },
    io::{Errno, pread, pwrite},
};

use super::merge::{Layers, Seen, beneath, join};
use crate::{
    containers::Lower,
    unpack::tree::{magic, split},
};

/// Attributes of overlayfs and labels of the host are no part of an image.
const OURS: [&[u8]; 2] = [b"trusted.overlay.", b"security.selinux"];
/// The most that an attribute's value or the list of names can have.
const MAX_ATTRIBUTES: usize = 64 << 10;
const CHUNK: usize = 128 << 10;

/// Copies what layers show into an empty folder. `label` is the SELinux label of all files, where there are any.
pub(super) fn copy(lower: &Lower, target: &Path, label: Option<&str>) -> io::Result<()> {
    let target = openat(CWD, target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut label = label.map(|label| label.as_bytes().to_vec());
    label.iter_mut().for_each(|label| label.push(0));
    let layers = Layers::open(lower)?;
    let mut copier = Copier { layers, target, links: HashMap::new(), label, shares: true, buffer: vec![0; CHUNK] };
    copier.run()?;
    // Times of the root are those of the container's own folder.
    let Copier { target, .. } = &copier;
    let root = lower.root;
    chownat(target, ".", Some(Uid::from_raw(root.uid)), Some(Gid::from_raw(root.gid)), AtFlags::empty())?;
    chmodat(target, ".", Mode::from(root.mode), AtFlags::empty())?;
    copier.label(&copier.target, c".")
}

struct Copier<'a> {
    layers: Layers<'a>,
    target: OwnedFd,
    /// Where files of a layer were copied to that have several names.
    links: HashMap<(usize, u64), Vec<u8>>,
    /// With a NUL behind it, as the kernel keeps them.
    label: Option<Vec<u8>>,
    /// The filesystem has not refused yet to have files share blocks.
    shares: bool,
    buffer: Vec<u8>,
}

/// How deep folders lie is an image's to choose: no recursion.
enum Step {
    Enter(Vec<u8>, Vec<usize>),
    /// All is in it, so that its time stays.
    Finish(Vec<u8>, usize),
}

impl Copier<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut steps = vec![Step::Enter(Vec::new(), self.layers.root())];
        while let Some(step) = steps.pop() {
            let (Step::Enter(path, _) | Step::Finish(path, _)) = &step;
            let told = |error: io::Error| named(&error, path);
            match &step {
                Step::Enter(path, content) => self.enter(path, content, &mut steps).map_err(told)?,
                Step::Finish(path, layer) => {
                    let (from, to) =
                        (self.layers.folder(*layer, path).map_err(told)?, beneath(&self.target, path).map_err(told)?);
                    let stat = fstat(&from)?;
                    self.attributes((&from, c"."), (&to, c"."), &stat).map_err(told)?;
                }
            }
        }
        Ok(())
    }

    fn enter(&mut self, path: &[u8], content: &[usize], steps: &mut Vec<Step>) -> io::Result<()> {
        let (folders, seen) = self.layers.list(path, content)?;
        let target = beneath(&self.target, path)?;
        for (name, seen) in seen {
            let below = join(path, name.to_bytes());
            match seen {
                Seen::Folder(folder) => {
                    mkdirat(&target, &name, Mode::from(0o700))?;
                    steps.push(Step::Finish(below.clone(), folder.attributes));
                    steps.push(Step::Enter(below, folder.content));
                }
                Seen::File(place, stat) => {
                    let from = (&folders[place], name.as_c_str());
                    let copied = self.file(from, content[place], &target, &below, &stat);
                    copied.map_err(|error| named(&error, &below))?;
                }
            }
        }
        Ok(())
    }

    /// Anything but a folder.
    fn file(
        &mut self,
        from: (&OwnedFd, &CStr),
        layer: usize,
        target: &OwnedFd,
        path: &[u8],
        stat: &Stat,
    ) -> io::Result<()> {
        let name = from.1;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(layer, stat.st_ino)) {
                let (folder, first) = split(first);
                return Ok(linkat(beneath(&self.target, folder)?, first, target, name, AtFlags::empty())?);
            }
            self.links.insert((layer, stat.st_ino), path.to_vec());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = openat(from.0, name, read, Mode::empty())?;
                let copy = openat(target, name, write, Mode::from(0o600))?;
                self.content(&source, &copy, u64::try_from(stat.st_size).unwrap_or(0))?;
            }
            FileType::Symlink => symlinkat(readlinkat(from.0, name, Vec::new())?, target, name)?,
            kind => mknodat(target, name, kind, Mode::from(0o600), stat.st_rdev)?,
        }
        self.attributes(from, (target, name), stat)
    }

    fn content(&mut self, from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        if self.shares {
            match ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(Errno::NOTSUP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => self.shares = false,
                Err(error) => return Err(error.into()),
            }
        }
        // Holes stay holes.
        ftruncate(to, size)?;
        let mut at = 0;
        while at < size {
            let (begin, end) = match seek(from, SeekFrom::Data(at)) {
                Ok(begin) => (begin, seek(from, SeekFrom::Hole(begin))?.min(size)),
                Err(Errno::NXIO) => return Ok(()),
                Err(Errno::INVAL) => (at, size),
                Err(error) => return Err(error.into()),
            };
            self.range(from, to, begin, end)?;
            at = end;
        }
        Ok(())
    }

    fn range(&mut self, from: &OwnedFd, to: &OwnedFd, begin: u64, end: u64) -> io::Result<()> {
        let (mut read, mut write) = (begin, begin);
        while write < end {
            let left = usize::try_from(end - write).unwrap_or(usize::MAX);
            let copied = match copy_file_range(from, Some(&mut read), to, Some(&mut write), left) {
                Err(Errno::XDEV | Errno::NOSYS | Errno::NOTSUP | Errno::INVAL) => {
                    let count = left.min(self.buffer.len());
                    let count = pread(from, &mut self.buffer[..count], read)?;
                    let count = pwrite(to, &self.buffer[..count], write)?;
                    read += count as u64;
                    write += count as u64;
                    count
                }
                Err(Errno::INTR) => continue,
                copied => copied?,
            };
            if copied == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than its layer says"));
            }
        }
        Ok(())
    }

    /// Owner, mode, attributes and times. The owner first: changing it clears set-user-ID bits and capabilities.
    fn attributes(&self, from: (&OwnedFd, &CStr), to: (&OwnedFd, &CStr), stat: &Stat) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(to.0, to.1, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            chmodat(to.0, to.1, Mode::from_raw_mode(stat.st_mode), AtFlags::empty())?;
        }
        extended(&magic(from.0, from.1.to_bytes()), &magic(to.0, to.1.to_bytes()))?;
        self.label(to.0, to.1)?;
        let times = Timestamps {
            last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
        };
        Ok(utimensat(to.0, to.1, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn label(&self, folder: &OwnedFd, name: &CStr) -> io::Result<()> {
        let Some(label) = &self.label else { return Ok(()) };
        Ok(lsetxattr(magic(folder, name.to_bytes()), "security.selinux", label, XattrFlags::empty())?)
    }
}

/// Copies extended attributes. A filesystem without them is the operator's choice.
fn extended(from: &[u8], to: &[u8]) -> io::Result<()> {
    let mut names = vec![0; MAX_ATTRIBUTES];
    let length = match llistxattr(from, &mut names[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if OURS.iter().any(|ours| name.starts_with(ours)) {
            continue;
        }
        value.resize(MAX_ATTRIBUTES, 0);
        let name = CString::new(name).map_err(io::Error::other)?;
        let length = lgetxattr(from, &name, &mut value[..])?;
        match lsetxattr(to, &name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// An error with the path of the image at which it happened. Its kind stays.
fn named(error: &io::Error, path: &[u8]) -> io::Error {
    if error.get_ref().is_some() {
        return io::Error::new(error.kind(), error.to_string());
    }
    io::Error::new(error.kind(), format!("copy /{}: {error}", path.escape_ascii()))
}

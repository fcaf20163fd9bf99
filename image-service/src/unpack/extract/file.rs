//! Files and their content: written, or linked where another layer has the very same file.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{
        AtFlags, CWD, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr,
        fstat, ftruncate, futimens, linkat, openat, seek, statat,
    },
    io::{Errno, pread},
};

use super::Extraction;
use crate::{
    objects::{Look, Object},
    record::ContentHash,
    unpack::{
        UnpackError,
        archive::Entry,
        attributes::{allowed, gid, ignore_unsupported, times, uid},
        os,
        tree::magic,
    },
};

/// Bytes that are compared at a time.
const BUFFER: usize = 64 << 10;

fn inode(file: &OwnedFd, path: &[u8]) -> Result<u64, UnpackError> {
    Ok(fstat(file).map_err(|error| UnpackError::write("look at", path, error))?.st_ino)
}

/// Bytes that are on this host already could not be written.
fn copied(path: &[u8]) -> impl Fn(io::Error) -> UnpackError {
    move |source| UnpackError::Write { step: "write", path: os(path), source }
}

impl<R: BufRead> Extraction<'_, R> {
    pub(super) fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        sparse: Option<(&Vec<(u64, u64)>, u64)>,
    ) -> Result<(), UnpackError> {
        self.hash = ContentHash::default();
        let object = if sparse.is_none() { self.object(path, entry) } else { None };
        let equal = object.as_ref().map_or(Ok(0), |object| self.compare(object, path))?;
        if let Some(object) = &object
            && equal == entry.size
            && self.share(object, parent, name, path)?
        {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let plain = entry.mode & 0o777;
        let file = self.place(parent, name, path, |parent| openat(parent, name, flags, Mode::from(plain)))?;
        let written = match sparse {
            None => {
                if let Some(object) = object.filter(|_| equal > 0) {
                    copy_out(&object.file, &file, equal).map_err(copied(path))?;
                    self.wrote(equal)?;
                }
                let written = equal + self.copy(&file, path, equal, u64::MAX)?;
                self.result.contents.insert(inode(&file, path)?, std::mem::take(&mut self.hash).finish());
                written
            }
            Some((regions, whole)) => {
                let failed = |error| UnpackError::write("make the holes of", path, error);
                if whole > self.limits.layer_bytes {
                    return Err(UnpackError::Limit { what: "bytes", limit: self.limits.layer_bytes });
                }
                ftruncate(&file, whole).map_err(failed)?;
                for (offset, length) in regions {
                    seek(&file, SeekFrom::Start(*offset)).map_err(failed)?;
                    self.copy(&file, path, *offset, *length)?;
                }
                // Read for the record, holes and all; the number may be that of a file that was replaced.
                self.result.contents.forget(inode(&file, path)?);
                whole
            }
        };
        self.result.bytes += written;
        // Holes cost no disk, but whoever reads the layer.
        if self.result.bytes > self.limits.layer_bytes {
            return Err(UnpackError::Limit { what: "bytes", limit: self.limits.layer_bytes });
        }
        self.result.disk_bytes += entry.size.div_ceil(4096) * 4096;
        let failed = |step| move |error| UnpackError::write(step, path, error);
        if entry.uid != 0 || entry.gid != 0 {
            fchown(&file, uid(entry), gid(entry)).map_err(failed("set the owner of"))?;
        }
        // After the owner, because changing that clears the set-user-ID bit.
        if entry.mode != plain || plain & self.umask != 0 {
            fchmod(&file, Mode::from(entry.mode)).map_err(failed("set the mode of"))?;
        }
        for (name, value) in allowed(entry) {
            ignore_unsupported(fsetxattr(&file, name, value, XattrFlags::empty()))
                .map_err(failed("set an extended attribute of"))?;
        }
        futimens(&file, &times(entry)).map_err(failed("set the time of"))
    }

    /// Writes up to `limit` bytes of the entry's content, to where the file stands: at `offset`.
    fn copy(&mut self, file: &OwnedFd, path: &[u8], offset: u64, limit: u64) -> Result<u64, UnpackError> {
        self.archive.reader().file(path, offset);
        let mut written = 0;
        while written < limit {
            let left = self.archive.remaining();
            let content = self.archive.content()?;
            if content.is_empty() {
                break;
            }
            let count = usize::try_from(limit - written).unwrap_or(usize::MAX).min(content.len());
            let count = match rustix::io::write(file, &content[..count]) {
                Err(Errno::INTR) => continue,
                count => count.map_err(|error| UnpackError::write("write", path, error))?,
            };
            self.hash.update(&content[..count], count as u64 == left);
            self.archive.consume(count);
            written += count as u64;
            self.wrote(count as u64)?;
        }
        self.archive.reader().no_file();
        Ok(written)
    }

    /// Counts bytes that were written, and stops when the disk gets full.
    fn wrote(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.room.as_mut().map_or(Ok(()), |room| room.wrote(bytes))
    }

    /// What another layer has that looks like this entry.
    fn object(&self, path: &[u8], entry: &Entry) -> Option<Object> {
        let objects = self.objects.filter(|_| self.result.contents.can_share())?;
        let Entry { size, mode, uid, gid, mtime, .. } = *entry;
        let attributes = allowed(entry).next().is_some();
        objects.find(&Look { path, size, mode, uid, gid, mtime, attributes })
    }

    /// Takes content for as long as it is the same as an object's. What differs, or cannot be read there, is left.
    fn compare(&mut self, object: &Object, path: &[u8]) -> Result<u64, UnpackError> {
        self.buffer.resize(BUFFER, 0);
        self.archive.reader().file(path, 0);
        let mut equal = 0;
        loop {
            let left = self.archive.remaining();
            let content = self.archive.content()?;
            let count = content.len().min(BUFFER);
            if count == 0 || !reads(object, equal, &content[..count], &mut self.buffer[..count]) {
                break;
            }
            self.hash.update(&content[..count], count as u64 == left);
            self.archive.consume(count);
            equal += count as u64;
        }
        self.archive.reader().no_file();
        Ok(equal)
    }

    /// Puts an object in an entry's place. Whether it could be done.
    fn share(&mut self, object: &Object, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<bool, UnpackError> {
        // By the descriptor, as its name may have become another's.
        let from = magic(&object.file, b"");
        let link = |parent: &OwnedFd| linkat(CWD, from.as_slice(), parent, name, AtFlags::SYMLINK_FOLLOW);
        match self.place(parent, name, path, link) {
            Ok(()) => {}
            // Too many links, or no layer has it any more. What is really wrong shows when it is written.
            Err(UnpackError::Write { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let size = fstat(&object.file).map_err(|error| UnpackError::write("look at", path, error))?.st_size;
        let size = u64::try_from(size).unwrap_or(0);
        self.result.bytes += size;
        if self.result.bytes > self.limits.layer_bytes {
            return Err(UnpackError::Limit { what: "bytes", limit: self.limits.layer_bytes });
        }
        self.result.disk_bytes += size.div_ceil(4096) * 4096;
        self.result.contents.share(object.inode, std::mem::take(&mut self.hash).finish());
        Ok(true)
    }

    /// Sees to it that a file that is to have a second name belongs to no other layer: there the second name may be
    /// another file, and one file must not be seen under two names that the image does not link.
    pub(super) fn make_own(&mut self, folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        let failed = |step| move |error| UnpackError::write(step, path, error);
        let shared = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if self.result.contents.is_shared(stat.st_ino) => stat,
            // What is not there is told when the link is made.
            _ => return Ok(()),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = openat(folder, name, flags, Mode::empty()).map_err(failed("open"))?;
        self.tree.remove(folder, name, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder, name, flags, Mode::empty()).map_err(failed("make"))?;
        copy_out(&from, &file, u64::try_from(shared.st_size).unwrap_or(0)).map_err(copied(path))?;
        fchown(&file, Some(Uid::from_raw(shared.st_uid)), Some(Gid::from_raw(shared.st_gid)))
            .map_err(failed("set the owner of"))?;
        fchmod(&file, Mode::from(shared.st_mode & 0o7777)).map_err(failed("set the mode of"))?;
        #[allow(clippy::useless_conversion, reason = "its type differs between architectures")]
        let time = Timespec { tv_sec: shared.st_mtime, tv_nsec: shared.st_mtime_nsec.try_into().unwrap_or(0) };
        futimens(&file, &Timestamps { last_access: time, last_modification: time })
            .map_err(failed("set the time of"))?;
        self.result.contents.make_own(shared.st_ino, inode(&file, path)?);
        Ok(())
    }
}

/// Whether an object has this content there.
fn reads(object: &Object, offset: u64, content: &[u8], buffer: &mut [u8]) -> bool {
    let mut length = 0;
    while length < buffer.len() {
        match pread(&object.file, &mut buffer[length..], offset + length as u64) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(count) => length += count,
        }
    }
    buffer == content
}

/// Copies the beginning of a file to the beginning of another, which then stands behind it. Filesystems that can have two
/// files share their blocks let them.
fn copy_out(from: &OwnedFd, to: &OwnedFd, count: u64) -> io::Result<()> {
    let (from, to) = (from.try_clone()?, to.try_clone()?);
    match io::copy(&mut File::from(from).take(count), &mut File::from(to))? {
        copied if copied == count => Ok(()),
        _ => Err(io::Error::other("the file of another layer that is the same has become shorter")),
    }
}

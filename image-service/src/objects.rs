//! Files that layers have in common: `objects/HH/…`, each a hard link to a file of one layer or more.
//!
//! A file may be the same inode in several layers if it is so at the same path and looks the same to whoever sees it:
//! type, mode, owner, group, time, size, no extended attributes, and its content byte for byte. An object's name is the
//! hash of its path and of how it looks, so that it is found before its content is there to be compared; a name says
//! nothing of the content. The object of a file is made with its layer, before anybody has that mounted: a running
//! container never sees a file become linked. The last layer that goes leaves an object with one link, which is swept.

use std::{
    collections::HashMap,
    ffi::CStr,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, linkat, mkdirat, openat, statat, unlinkat},
    io::Errno,
};
use twox_hash::XxHash3_128;

use crate::record::{self, Kind, Node};

/// Bytes of the smallest file that is shared: on a Debian system those below are 87 % of the files and 10 % of the bytes.
pub(crate) const LEAST: u64 = 16 << 10;
/// What programs refuse to compress or unpack in place when it has more than one link.
const PACKED: [&[u8]; 11] = [b"gz", b"tgz", b"bz2", b"tbz2", b"xz", b"txz", b"lzma", b"lz", b"lzo", b"zst", b"Z"];
/// Folders whose files are made to be changed, or are asked for their links, as those of cron and mail are.
const OWN: [&[u8]; 5] = [b"var", b"run", b"tmp", b"data", b"etc"];

/// How a file looks but for its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// In its layer.
    pub path: &'a [u8],
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    /// It has extended attributes.
    pub attributes: bool,
}

impl Look<'_> {
    /// Whether it may have a link that belongs to others.
    pub(crate) fn can_be_shared(&self) -> bool {
        let mut parts = self.path.split(|byte| *byte == b'/');
        let first = parts.next().unwrap_or_default();
        let ending = self.path.iter().rposition(|byte| *byte == b'.').map(|dot| &self.path[dot + 1..]);
        self.size >= LEAST
            && self.mode & 0o6000 == 0
            && !self.attributes
            && !OWN.contains(&first)
            && parts.all(|part| part != b"etc")
            && !ending.is_some_and(|ending| PACKED.contains(&ending))
    }

    /// The object's name.
    fn name(&self) -> (String, String) {
        let mut all = Vec::with_capacity(self.path.len() + 32);
        all.extend_from_slice(&self.size.to_le_bytes());
        all.extend_from_slice(&self.mtime.0.to_le_bytes());
        [self.mtime.1, self.mode, self.uid, self.gid]
            .iter()
            .for_each(|part| all.extend_from_slice(&part.to_le_bytes()));
        all.extend_from_slice(self.path);
        let name = format!("{:032x}", XxHash3_128::oneshot(&all));
        let folder = name[..2].to_owned();
        (folder.clone(), format!("{folder}/{}", &name[2..]))
    }

    fn is(&self, stat: &Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(self.size)
            && (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (self.mode, self.uid, self.gid)
            && (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).ok()) == (self.mtime.0, Some(self.mtime.1))
    }
}

/// An object that may be what a layer wants.
#[derive(Debug)]
pub(crate) struct Object {
    pub file: OwnedFd,
    pub inode: u64,
}

/// What sharing saves: of files that several layers have, all but one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    pub bytes: u64,
    pub inodes: u64,
}

impl Saved {
    fn add(&mut self, object: &Stat) {
        // Its first layer and the object itself.
        let more = links(object).saturating_sub(2);
        self.bytes += more * size(object);
        self.inodes += more;
    }
}

/// Files that more than one layer has, by inode: their links and bytes.
type Shared = HashMap<u64, (u64, u64)>;

/// The folder of objects.
#[derive(Debug)]
pub(crate) struct Objects {
    folder: OwnedFd,
    /// Whether layers that are unpacked now take part.
    enabled: bool,
    /// Goes up with whatever changes the number of links.
    changes: AtomicU64,
    saved: Mutex<Option<(u64, Saved)>>,
}

impl Objects {
    /// Over a folder that is there.
    pub(crate) fn open(folder: &Path, enabled: bool) -> io::Result<Self> {
        let folder = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder, enabled, changes: AtomicU64::new(0), saved: Mutex::new(None) })
    }

    /// An object that looks like this. Only a comparison says whether its content is the same.
    pub(crate) fn find(&self, look: &Look<'_>) -> Option<Object> {
        if !self.enabled || !look.can_be_shared() {
            return None;
        }
        // Reading it must not show in its time of access.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::CLOEXEC;
        let file = openat(&self.folder, look.name().1, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        (look.is(&stat) && record::has_no_attributes(&file)).then_some(Object { file, inode: stat.st_ino })
    }

    /// Makes the object of a file in a layer that nobody has mounted yet, if it can be shared. That it cannot be made (no
    /// more links, no links on this filesystem, another one meanwhile) costs nothing but what it would have saved.
    pub(crate) fn keep(&self, folder: &impl AsFd, name: &CStr, node: &Node) {
        let Kind::File { size, .. } = node.kind else { return };
        let Node { mode, uid, gid, mtime, .. } = *node;
        let look = Look { path: &node.path, size, mode, uid, gid, mtime, attributes: !node.xattrs.is_empty() };
        if !self.enabled || node.links > 0 || !look.can_be_shared() {
            return;
        }
        let (shelf, object) = look.name();
        let link = || linkat(folder, name, &self.folder, &object, AtFlags::empty());
        let made = match link() {
            Err(Errno::NOENT) => match mkdirat(&self.folder, &shelf, Mode::from(0o700)) {
                Ok(()) | Err(Errno::EXIST) => link(),
                Err(error) => Err(error),
            },
            // Another content of the same looks: the newer is the likelier to come again, unless that one is shared.
            Err(Errno::EXIST) if statat(&self.folder, &object, AtFlags::empty()).is_ok_and(|is| is.st_nlink <= 2) => {
                let _ = unlinkat(&self.folder, &object, AtFlags::empty());
                link()
            }
            made => made,
        };
        if let Err(error) = made
            && error != Errno::EXIST
        {
            tracing::debug!(object, %error, "a file cannot be shared");
        }
    }

    /// Says that layers came or went.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes objects that no layer has any more.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let changes = self.changes.fetch_add(1, Ordering::Relaxed) + 1;
        let mut saved = Saved::default();
        self.each(|folder, name, stat| {
            saved.add(stat);
            // Who links to it in this very moment has it alone.
            match if stat.st_nlink == 1 { unlinkat(folder, name, AtFlags::empty()) } else { Ok(()) } {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })?;
        *self.known() = Some((changes, saved));
        Ok(())
    }

    /// What sharing saves in all.
    pub(crate) fn saved(&self) -> io::Result<Saved> {
        let changes = self.changes.load(Ordering::Relaxed);
        if let Some((_, saved)) = self.known().filter(|(then, _)| *then == changes) {
            return Ok(saved);
        }
        let mut saved = Saved::default();
        self.each(|_, _, stat| {
            saved.add(stat);
            Ok(())
        })?;
        *self.known() = Some((changes, saved));
        Ok(saved)
    }

    /// What it saved when somebody counted last: after each collection, and some seconds after pulls.
    pub(crate) fn saved_lately(&self) -> Saved {
        self.known().map_or_else(Saved::default, |(_, saved)| saved)
    }

    fn known(&self) -> MutexGuard<'_, Option<(u64, Saved)>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all objects: the most that a layer can have of them.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        self.each(|_, _, stat| {
            bytes += size(stat);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn shared(&self) -> io::Result<Shared> {
        let mut shared = Shared::new();
        self.each(|_, _, stat| {
            if links(stat) > 2 {
                shared.insert(stat.st_ino, (links(stat), size(stat)));
            }
            Ok(())
        })?;
        Ok(shared)
    }

    /// Of the bytes that each of these layers has, how many stay when all of them go, or are counted more than once.
    pub(crate) fn staying(&self, layers: &[impl AsRef<Path>]) -> io::Result<u64> {
        let shared = if layers.is_empty() { Shared::new() } else { self.shared()? };
        if shared.is_empty() {
            return Ok(0);
        }
        let mut found: HashMap<u64, u64> = HashMap::new();
        for layer in layers {
            let walked = record::walk(layer.as_ref(), false, |file| {
                if shared.contains_key(&file.inode()) {
                    *found.entry(file.inode()).or_default() += 1;
                }
                Ok(())
            });
            match walked {
                // It goes already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                walked => walked?,
            }
        }
        let stays = found.into_iter().map(|(inode, count)| {
            let (links, bytes) = shared[&inode];
            bytes * if count + 1 >= links { count.saturating_sub(1) } else { count }
        });
        Ok(stays.sum())
    }

    fn each(&self, mut visit: impl FnMut(&OwnedFd, &CStr, &Stat) -> io::Result<()>) -> io::Result<()> {
        let open = |name: &CStr| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&self.folder, name, flags, Mode::empty())
        };
        for shelf in record::names(&open(c".")?)? {
            let folder = match open(&shelf) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                folder => folder?,
            };
            for name in record::names(&folder)? {
                match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => {}
                    stat => visit(&folder, &name, &stat?)?,
                }
            }
        }
        Ok(())
    }
}

/// Layers that have an object, and the object itself.
fn links(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion, reason = "its type differs between architectures")]
    u64::try_from(stat.st_nlink).unwrap_or(0)
}

/// Bytes of a file in blocks.
fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0).next_multiple_of(4096)
}

#[cfg(test)]
mod tests;

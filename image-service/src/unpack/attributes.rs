//! Owners, modes, times and extended attributes: which of an entry's count, and in what form.

use rustix::{
    fs::{Gid, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::archive::Entry;

/// What a folder gets at the end.
pub(super) struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub times: Timestamps,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    pub(super) fn of(entry: &Entry) -> Self {
        let xattrs = allowed(entry).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let Entry { mode, uid, gid, .. } = *entry;
        Self { mode, uid, gid, times: times(entry), xattrs }
    }

    /// Bytes of memory beside their own.
    pub(super) fn size(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum()
    }
}

pub(super) fn uid(entry: &Entry) -> Option<Uid> {
    Some(Uid::from_raw(entry.uid))
}

pub(super) fn gid(entry: &Entry) -> Option<Gid> {
    Some(Gid::from_raw(entry.gid))
}

pub(super) fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Attributes that a layer may bring: those of users, ACLs and file capabilities. Overlayfs's own would let a layer
/// redirect lookups on the host, and security labels are the host's to give.
pub(super) fn allowed(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let named = |name: &[u8]| {
        name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
            || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
    };
    let clean = |name: &[u8]| name.len() <= 255 && !name.contains(&0);
    let all = entry.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    all.filter(move |(name, _)| named(name) && clean(name))
}

/// A filesystem without extended attributes is the operator's choice, not the image's fault.
pub(super) fn ignore_unsupported(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOTSUP) => Ok(()),
        result => result,
    }
}

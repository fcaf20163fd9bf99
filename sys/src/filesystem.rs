//! Ending a filesystem in the midst of its work, as a power failure or a pulled cable does. Only tests do that: how much
//! is lost when the node goes down cannot be shown on one that stays up.

use std::{ffi::c_uint, io, os::fd::AsFd, os::fd::AsRawFd};

/// `_IOR('X', 125, __u32)`: `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, which are the same number.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;

/// What of the journal still reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// What was done so far, as when a disk breaks after a quiet moment.
    Written,
    /// What was synced, and no more: a power failure.
    Lost,
}

/// Shuts down the filesystem (ext4 or XFS) that an open file is on. Whatever is done on it from then on fails with EIO,
/// until it is unmounted and mounted again.
pub fn shut_down(file: impl AsFd, journal: Journal) -> io::Result<()> {
    let flags: c_uint = match journal {
        Journal::Written => 1,
        Journal::Lost => 2,
    };
    // SAFETY: reads a number from a valid address and keeps nothing of it.
    match unsafe { libc::ioctl(file.as_fd().as_raw_fd(), SHUTDOWN, &raw const flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

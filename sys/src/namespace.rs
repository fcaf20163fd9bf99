//! Leaving namespaces. (Joining them is in rustix.)

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into new namespaces of the kinds given.
///
/// Only flags for namespaces are taken, and that for a root and working directory of its own; sharing of file descriptors
/// and the like stays as it is.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    let allowed = UnshareFlags::FS
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUSER
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET;
    if !allowed.contains(flags) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: unsafe only because of CLONE_FILES, which the check above excludes.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// Gives the calling process a new, empty session keyring, so that it does not share the caller's keys.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is read.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

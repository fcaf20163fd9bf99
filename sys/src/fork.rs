//! clone3 without a stack of its own, that is: fork with flags. From the shim to the first process of a container.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::process::Pid;

/// A new mount namespace for the child.
pub const NEW_MOUNT: u64 = libc::CLONE_NEWNS as u64;
/// A new PID namespace whose first process is the child.
pub const NEW_PID: u64 = libc::CLONE_NEWPID as u64;
/// A new user namespace for the child, which has all rights in it.
pub const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;

const ALLOWED: u64 = NEW_MOUNT | NEW_PID | NEW_USER;
const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of Linux 5.7.
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child process, still unreaped.
#[derive(Debug)]
pub struct Child {
    /// Its PID as the caller sees it.
    pub pid: Pid,
    /// Refers to the process even after it was reaped.
    pub pidfd: OwnedFd,
}

/// Starts a child that runs `child` and then exits with the code that it returned.
///
/// `flags` is any of [`NEW_MOUNT`], [`NEW_PID`] and [`NEW_USER`]; with `cgroup`, the descriptor of a cgroup v2 directory,
/// the child is born there (Linux 5.7). The child has a copy of the caller's memory and descriptors.
///
/// Only a process with one thread may call this, and it is refused otherwise: in the child of a threaded process any
/// lock, malloc's among them, could be held for ever by a thread that does not exist there.
pub fn spawn(flags: u64, cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce() -> i32) -> io::Result<Child> {
    if flags & !ALLOWED != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if !is_single_threaded()? {
        return Err(io::Error::other("a process with several threads must not fork"));
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args for the size given, and `pidfd` outlives the call. No memory is shared with
    // the child (no CLONE_VM), and as the process has one thread, its copy of the memory is consistent.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = child();
            // SAFETY: ends the process at once; the parent's exit handlers and buffers are not the child's to run.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // SAFETY: the kernel has stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            pid.map(|pid| Child { pid, pidfd }).ok_or_else(|| io::Error::other("the kernel gave an impossible PID"))
        }
    }
}

/// Starts a child of the calling process' *parent*, which runs `child` and then exits with the code that it returned. It
/// is born into the PID namespace that the caller has entered for its children, or, with `flags` [`NEW_PID`], into a new one.
///
/// The caller must be a child of [`spawn`], and so have one thread: by now its `/proc` may be anybody's, and is not asked.
pub fn sibling(flags: u64, child: impl FnOnce() -> i32) -> io::Result<Child> {
    // The signal at its end is that of the caller's own.
    again(flags & NEW_PID | libc::CLONE_PARENT as u64, 0, child)
}

/// Starts a child of the calling process, which runs `child` and then exits with the code that it returned. The caller
/// must be a child of [`spawn`], as with [`sibling`].
pub fn further(child: impl FnOnce() -> i32) -> io::Result<Child> {
    again(0, libc::SIGCHLD as u64, child)
}

/// A fork of a process that is known to have one thread.
fn again(flags: u64, exit_signal: u64, child: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let mut args =
        CloneArgs { flags: flags | CLONE_PIDFD, pidfd: (&raw mut pidfd) as u64, exit_signal, ..CloneArgs::default() };
    // SAFETY: as in `spawn`: `args` is valid, `pidfd` outlives the call, and no memory is shared with the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = child();
            // SAFETY: ends the process at once; the caller's exit handlers and buffers are not the child's to run.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            // SAFETY: the kernel has stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            pid.map(|pid| Child { pid, pidfd }).ok_or_else(|| io::Error::other("the kernel gave an impossible PID"))
        }
    }
}

/// Whether the calling process has exactly one thread: `/proc/self/task` has one link per thread and two of its own.
pub fn is_single_threaded() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3)
}

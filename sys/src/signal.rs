//! Signals of the calling process: ignoring them, reading them from a descriptor, giving children a clean start.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// Number of the last signal.
const LAST: libc::c_int = 64;

/// A descriptor that becomes readable when a child has changed state. `SIGCHLD` is blocked from then on.
#[derive(Debug)]
pub struct ChildSignals(OwnedFd);

// === impl ChildSignals ===

impl ChildSignals {
    /// Blocks `SIGCHLD` and opens the descriptor, non-blocking.
    pub fn new() -> io::Result<ChildSignals> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it; the descriptor is new and ours.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) < 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(ChildSignals(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Takes what is pending. Signals of several children merge into one, so that callers look for all of them.
    pub fn clear(&self) {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: reads at most `size` bytes into a buffer of that size.
        while unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) } > 0 {}
    }
}

impl AsFd for ChildSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ignores all signals that would end the process and that come from terminals, peers or service managers.
pub fn ignore_all_that_end_us() {
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGXFSZ,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ] {
        set(signal, libc::SIG_IGN);
    }
}

/// Gives every signal its default action and blocks none: what a new program expects to find.
pub fn reset_all() {
    for signal in 1..=LAST {
        set(signal, libc::SIG_DFL);
    }
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before sigprocmask reads it.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// Sends a signal, by number, to the process that `pidfd` refers to.
pub fn send(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let pidfd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a null siginfo asks the kernel to fill it in as kill(2) does.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, ptr::null::<libc::c_void>(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// SIGKILL and SIGSTOP cannot be changed; that they are tried does no harm.
///
/// Straight to the kernel, because libc refuses the two signals that its threads use; a parent that is not made with
/// libc may have left them ignored.
fn set(signal: libc::c_int, action: libc::sighandler_t) {
    // The kernel's struct sigaction: handler, flags, restorer, mask.
    let action = [action as u64, 0, 0, 0];
    // SAFETY: SIG_IGN and SIG_DFL run no code of ours; `action` is the structure that the kernel reads, with a mask of
    // the 8 bytes that are announced.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), ptr::null::<libc::c_void>(), 8);
    }
}

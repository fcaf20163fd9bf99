//! Starting the shim from the daemon: a program that is an open file, with chosen descriptors, in a session of its own.
//! posix_spawn shares memory with the child until it executes, so that the size of the daemon costs nothing.

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::exec::Strings;

/// A process that was started and is not yet reaped.
#[derive(Debug)]
pub struct Spawned {
    /// Its PID. Reap it with waitid on [`Spawned::pidfd`].
    pub pid: Pid,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
}

/// Starts `program`, an open executable file, in a new session with working directory `/`, default signal actions and
/// an empty signal mask. `fds` become the child's descriptors 0, 1, 2, … in that order; it gets no others that are
/// marked close-on-exec.
pub fn spawn(program: BorrowedFd<'_>, argv: &[&str], env: &[&str], fds: &[BorrowedFd<'_>]) -> io::Result<Spawned> {
    let argv = Strings::new(argv.iter().copied())?;
    let env = Strings::new(env.iter().copied())?;
    // Above all targets, so that no dup2 in the child overwrites what a later one needs.
    let above = i32::try_from(fds.len()).map_err(io::Error::other)?;
    let program = fcntl_dupfd_cloexec(program, above)?;
    let sources = fds.iter().map(|fd| fcntl_dupfd_cloexec(fd, above)).collect::<Result<Vec<_>, _>>()?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;

    let mut actions = Actions::new()?;
    for (target, source) in (0..).zip(&sources) {
        actions.dup2(source.as_raw_fd(), target)?;
    }
    actions.chdir(c"/")?;
    let mut attributes = Attributes::new()?;
    attributes.new_session_and_default_signals()?;

    let mut pid: libc::pid_t = 0;
    // SAFETY: all pointers are to initialised objects that outlive the call; the C API takes the strings as mutable
    // but does not change them.
    let code = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            argv.as_ptr().cast(),
            env.as_ptr().cast(),
        )
    };
    result(code)?;
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no PID"))?;
    // It cannot have been reaped, so the PID is still its own.
    Ok(Spawned { pid, pidfd: pidfd_open(pid, PidfdFlags::empty())? })
}

/// Has the kernel kill the program that `command` starts when the thread that starts it ends, with its process or alone.
/// The program gets no other descriptors than the standard ones, whatever this process was started with.
pub fn end_with_thread(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4; // Linux 5.11
    let die_too = || {
        // SAFETY: bare system calls that take numbers; what is open stays so until the program is executed.
        let killed = unsafe {
            libc::syscall(libc::SYS_close_range, libc::STDERR_FILENO + 1, u32::MAX, CLOSE_RANGE_CLOEXEC);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)
        };
        match killed {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(die_too) };
}

fn result(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

struct Actions(MaybeUninit<libc::posix_spawn_file_actions_t>);

impl Actions {
    fn new() -> io::Result<Actions> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: initialises the object.
        result(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        Ok(Actions(actions))
    }

    fn dup2(&mut self, from: libc::c_int, to: libc::c_int) -> io::Result<()> {
        // SAFETY: initialised in `new`.
        result(unsafe { libc::posix_spawn_file_actions_adddup2(self.0.as_mut_ptr(), from, to) })
    }

    fn chdir(&mut self, path: &std::ffi::CStr) -> io::Result<()> {
        // SAFETY: initialised in `new`; the path is copied.
        result(unsafe { libc::posix_spawn_file_actions_addchdir_np(self.0.as_mut_ptr(), path.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new` and not used again.
        unsafe {
            libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr());
        }
    }
}

struct Attributes(MaybeUninit<libc::posix_spawnattr_t>);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: initialises the object.
        result(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        Ok(Attributes(attributes))
    }

    fn new_session_and_default_signals(&mut self) -> io::Result<()> {
        const POSIX_SPAWN_SETSID: libc::c_int = 0x80;
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        let flags = POSIX_SPAWN_SETSID | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        // SAFETY: the attributes were initialised in `new`, the set is before each use.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            result(libc::posix_spawnattr_setsigmask(self.0.as_mut_ptr(), set.as_ptr()))?;
            libc::sigfillset(set.as_mut_ptr());
            result(libc::posix_spawnattr_setsigdefault(self.0.as_mut_ptr(), set.as_ptr()))?;
            result(libc::posix_spawnattr_setflags(self.0.as_mut_ptr(), flags as libc::c_short))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new` and not used again.
        unsafe {
            libc::posix_spawnattr_destroy(self.0.as_mut_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn a_sealed_program_runs_with_the_descriptors_given() {
        let bytes = std::fs::read("/bin/sh").unwrap();
        let program = crate::memfd::seal("sh", &bytes).unwrap();
        let null = File::open("/dev/null").unwrap();
        let number = crate::memfd::seal("number", b"17\n").unwrap();
        std::io::Seek::rewind(&mut File::from(number.try_clone().unwrap())).unwrap();
        let fds = [null.as_fd(), null.as_fd(), null.as_fd(), number.as_fd()];
        let child =
            spawn(program.as_fd(), &["sh", "-c", "read n <&3; exit $n"], &["PATH=/usr/bin:/bin"], &fds).unwrap();
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(17));
    }
}

//! User namespaces: made, mapped and opened from outside.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, FromRawFd, OwnedFd},
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitId, WaitIdOptions, waitid},
};

/// Writes the maps of the user namespace that the process `pid` is in, each as `/proc/PID/uid_map` takes them. Works
/// once; the caller needs CAP_SETUID and CAP_SETGID in the namespace above.
pub fn map(pid: Pid, uids: &str, gids: &str) -> io::Result<()> {
    for (file, text) in [("gid_map", gids), ("uid_map", uids)] {
        // The kernel takes it in one write.
        File::options()
            .write(true)
            .open(format!("/proc/{}/{file}", pid.as_raw_nonzero()))?
            .write_all(text.as_bytes())?;
    }
    Ok(())
}

/// A user namespace with these maps and nobody in it. For processes with several threads too, and for several at once.
pub fn new(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let (stay, go) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut pidfd: libc::c_int = -1;
    let mut args: libc::clone_args = libc::clone_args {
        flags: (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    let read = std::os::fd::AsRawFd::as_raw_fd(&stay);
    // SAFETY: `args` is a clone_args of the size given, and `pidfd` outlives the call. The child, a copy of a process
    // that may have several threads, makes a few system calls by numbers and takes no lock.
    let pid = unsafe {
        match libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) {
            0 => {
                keep_only(read);
                let mut byte = 0u8;
                while libc::read(read, (&raw mut byte).cast(), 1) < 0 && *libc::__errno_location() == libc::EINTR {}
                libc::_exit(0)
            }
            pid => pid,
        }
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let open = |pid: Pid| {
        map(pid, uids, gids)?;
        io::Result::Ok(File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero()))?.into())
    };
    let made = pid.map_or_else(|| Err(io::Error::other("the kernel gave an impossible PID")), open);
    drop(go);
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    made
}

/// Closes all descriptors but one. Copies of what others wait to be closed would hold them up; of two processes that
/// each wait here for a pipe whose other end the other has a copy of, none would ever end.
///
/// # Safety
/// For a process that runs nothing afterwards that owns a descriptor.
unsafe fn keep_only(descriptor: libc::c_int) {
    let descriptor = descriptor.cast_unsigned();
    // SAFETY: the caller's promise.
    unsafe {
        if descriptor > 0 {
            libc::syscall(libc::SYS_close_range, 0, descriptor - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, descriptor + 1, libc::c_uint::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Barrier, mpsc},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::mount::{self, Attributes};

    #[test]
    fn a_mount_shows_owners_as_a_namespace_maps_them() {
        assert!(rustix::process::geteuid().is_root(), "this test makes namespaces and needs root");
        let ids = new("0 70000 1000", "0 80000 1000").unwrap();
        let tmpfs = mount::new_filesystem("tmpfs", &[], Attributes::default()).unwrap();
        mount::map_ids(&tmpfs, &ids, true).unwrap();
        let stat = rustix::fs::fstat(&tmpfs).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (70000, 80000));
        assert!(mount::map_ids(&tmpfs, &ids, true).is_err(), "a mount is mapped once");
        assert!(new("0 0 0", "0 0 0").is_err());
    }

    #[test]
    fn many_are_made_at_once() {
        const THREADS: usize = 16;
        const ROUNDS: usize = 250;
        let (barrier, (made, all)) = (Arc::new(Barrier::new(THREADS)), mpsc::channel());
        for _ in 0..THREADS {
            let (barrier, made) = (Arc::clone(&barrier), made.clone());
            thread::spawn(move || {
                for _ in 0..ROUNDS {
                    barrier.wait();
                    made.send(new("0 70000 1000", "0 80000 1000").is_ok()).unwrap();
                }
            });
        }
        for number in 0..THREADS * ROUNDS {
            let made = all.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("{number} were made"));
            assert!(made);
        }
    }
}

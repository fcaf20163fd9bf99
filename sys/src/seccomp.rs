//! Loading a seccomp filter.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

/// How the kernel is to treat a filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Actions other than "allow" are written to the log.
    pub log: bool,
    /// The mitigation against speculative store bypass stays off.
    pub spec_allow: bool,
    /// A call that a listener has taken up waits killably; only beside `listener`.
    pub wait_killable: bool,
    /// Give out a descriptor for whoever decides about calls.
    pub listener: bool,
}

/// Linux 5.19.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// The size of `struct sock_filter`.
const INSTRUCTION: usize = 8;

/// Confines the calling thread, and all that it becomes, to a program of `struct sock_filter`s. It cannot be taken back.
///
/// Takes either no_new_privs or CAP_SYS_ADMIN. Returns the listener's descriptor (close-on-exec) if one was asked for.
pub fn load(program: &[u8], flags: Flags) -> io::Result<Option<OwnedFd>> {
    let (instructions, rest) = program.as_chunks::<INSTRUCTION>();
    if !rest.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a whole number of instructions"));
    }
    let mut filter: Vec<libc::sock_filter> = instructions.iter().map(instruction).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let flags = [
        (flags.log, libc::SECCOMP_FILTER_FLAG_LOG),
        (flags.spec_allow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        (flags.wait_killable, WAIT_KILLABLE_RECV),
        (flags.listener, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
    ];
    let bits = flags.into_iter().filter(|(wanted, _)| *wanted).fold(0, |bits, (_, flag)| bits | flag);
    // SAFETY: `program` points to `len` instructions, and both outlive the call, which copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, bits, std::ptr::from_ref(&program)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if bits & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn instruction(bytes: &[u8; INSTRUCTION]) -> libc::sock_filter {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes;
    let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETURN: u8 = 0x06;

    fn returns(value: u32) -> Vec<u8> {
        [&[RETURN, 0, 0, 0][..], &value.to_ne_bytes()].concat()
    }

    #[test]
    fn half_an_instruction_is_refused() {
        assert_eq!(load(&[0; 12], Flags::default()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_thread_is_confined_and_its_siblings_are_not() {
        let confined = std::thread::spawn(|| {
            // SAFETY: a plain number.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            assert!(load(&[], Flags::default()).is_err(), "an empty program");
            load(&returns(0x7fff_0000), Flags { log: true, ..Flags::default() }).unwrap();
            let listener = Flags { listener: true, ..Flags::default() };
            assert!(load(&returns(0x7fff_0000), listener).unwrap().is_some());
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        assert!(confined.join().unwrap().contains("Seccomp:\t2"));
        assert!(std::fs::read_to_string("/proc/thread-self/status").unwrap().contains("Seccomp:\t0"));
    }
}

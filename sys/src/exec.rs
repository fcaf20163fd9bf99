//! execve, and the descriptors before and after it.

use std::{
    convert::Infallible,
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

/// Arguments or environment in the form that the kernel takes: pointers to C strings, ended by a null pointer.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const libc::c_char>,
    _owned: Vec<CString>,
}

// === impl Strings ===

impl Strings {
    /// Takes the strings; fails on one that contains a zero byte.
    pub fn new<'a>(strings: impl IntoIterator<Item = &'a str>) -> io::Result<Strings> {
        let owned = strings.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        // A CString's text is on the heap and does not move when the vector does.
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Ok(Strings { pointers, _owned: owned })
    }

    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// Replaces the calling process. Returns only to say why that failed.
pub fn execve(program: &CString, argv: &Strings, env: &Strings) -> io::Result<Infallible> {
    // SAFETY: all three are valid C strings, the vectors end with a null pointer, and all outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Closes every descriptor but standard input, output and error and those `kept`, runs `then` with these (closed on
/// exec), and exits with what it returns, if it returns.
///
/// The last thing that a child does: nothing that it inherited can be reached any more, neither by the program that
/// `then` executes nor through `/proc/self/fd` while that program is looked up. `then` must use no other descriptor
/// than those it opens itself.
pub fn with_stdio_and(kept: &[OwnedFd], then: impl FnOnce(&[BorrowedFd<'_>]) -> i32) -> ! {
    let first = libc::STDERR_FILENO + 1;
    let places = || first..first + kept.len() as libc::c_int;
    // SAFETY: descriptors that other values own are closed or replaced here, but this function does not return, and
    // `then` promises not to use them. Out of the way first, as one may be where another is to be.
    unsafe {
        let high: Vec<_> =
            kept.iter().map(|fd| libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, places().end)).collect();
        for (place, fd) in places().zip(high) {
            if fd < 0 || libc::dup3(fd, place, libc::O_CLOEXEC) < 0 {
                libc::_exit(1);
            }
        }
        if libc::syscall(libc::SYS_close_range, places().end, u32::MAX, 0) < 0 {
            // Linux before 5.9, or a filter: what cannot be closed at once must at least not be inherited.
            libc::_exit(1);
        }
    }
    // SAFETY: they are open, and nothing closes them before the process ends.
    let open: Vec<_> = places().map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }).collect();
    let code = then(&open);
    // SAFETY: ends the process without running the destructors of values whose descriptors are gone.
    unsafe { libc::_exit(code) }
}

/// Takes over a descriptor that the process was started with. `None` if it is not open or was already taken.
///
/// Only numbers that are in no other use belong here; each can be taken once.
pub fn inherited(number: u8) -> Option<OwnedFd> {
    static TAKEN: [AtomicBool; 256] = [const { AtomicBool::new(false) }; 256];
    let fd = libc::c_int::from(number);
    if fd <= libc::STDERR_FILENO || TAKEN[usize::from(number)].swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: fcntl on a number that may not be open only fails; it is open after that, and by the check above no
    // value made by this function owns it.
    unsafe {
        if libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) < 0 {
            return None;
        }
        Some(OwnedFd::from_raw_fd(fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_an_error() {
        let none = Strings::new([]).unwrap();
        let failed = execve(&CString::new("/no/such/program").unwrap(), &none, &none);
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_zero_byte_is_refused() {
        assert!(Strings::new(["a\0b"]).is_err());
    }
}

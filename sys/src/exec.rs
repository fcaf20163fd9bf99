//! execve, and what surrounds it.

use std::{convert::Infallible, ffi::CString, io, ptr};

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

/// Marks all descriptors from `first` on to be closed by execve (Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;
    // SAFETY: changes a flag of descriptors, closes none.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

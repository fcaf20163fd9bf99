//! What the kernel must have before anything else is tried.

use std::io;

use rustix::io::Errno;

/// The first kernel that has all that tripod cannot do without: the youngest of it is mount_setattr(2), and that it lets
/// symbolic links be followed again.
pub const OLDEST: &str = "5.14";

/// Calls what tripod cannot do without, in ways that do nothing. An error names what is missing, and this kernel.
pub fn check() -> io::Result<()> {
    check_with(|number| {
        // SAFETY: numbers and NULL only; with a size of 0, or a name at NULL, each of these calls is refused before it
        // does anything.
        let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

fn check_with(call: impl Fn(libc::c_long) -> io::Result<()>) -> io::Result<()> {
    // The youngest first.
    let needed = [
        (libc::SYS_mount_setattr, "mount_setattr(2), which came with Linux 5.12"),
        (libc::SYS_openat2, "openat2(2), which came with Linux 5.6"),
        (libc::SYS_fsopen, "fsopen(2), which came with Linux 5.2"),
    ];
    let absent = |number| call(number).is_err_and(|error| error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()));
    let Some((_, name)) = needed.into_iter().find(|(number, _)| absent(*number)) else { return Ok(()) };
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let text = format!("the kernel has no {name}: tripod needs Linux {OLDEST} or newer, this is {release}");
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_and_is_asked_for_nothing() {
        let table = || std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let before = table();
        check().unwrap();
        assert_eq!(table(), before);
    }

    #[test]
    fn what_an_old_kernel_lacks_is_named_and_any_other_refusal_is_none() {
        let lacks = |absent: &'static [libc::c_long]| {
            check_with(|number| Err(if absent.contains(&number) { Errno::NOSYS } else { Errno::PERM }.into()))
        };
        lacks(&[]).unwrap();
        let text = lacks(&[libc::SYS_mount_setattr]).unwrap_err().to_string();
        assert!(text.contains("no mount_setattr(2)") && text.contains("needs Linux 5.14"), "{text}");
        assert!(lacks(&[libc::SYS_fsopen]).unwrap_err().to_string().contains("no fsopen(2)"));
    }
}

//! Where in the container something is mounted, and what lies there: the checks that keep a hostile image, or whoever
//! writes to a volume meanwhile, from choosing another place or another thing.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, fstat, fstatfs, makedev},
    io::Errno,
};
use tripod_sys::{inroot, mount};

const PROC_SUPER_MAGIC: i64 = 0x9fa0; // linux/magic.h
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Attaches `mount` at `place`, which was found by the name `target`.
///
/// A link may lead a target into procfs; a mount there could fake what the runtime itself reads or writes under
/// `/proc/self` (CVE-2019-16884). Only a target that says `/proc` may, and over `/proc` itself lies nothing but a procfs.
pub(super) fn attach(mount: impl AsFd, place: OwnedFd, target: &Path) -> io::Result<()> {
    if is_procfs(&place)? && !target.starts_with("/proc") {
        return Err(io::Error::other("a symbolic link leads the target into /proc: name a path that is none"));
    }
    if target == Path::new("/proc") && !is_procfs(&mount)? {
        return Err(io::Error::other("what is to be mounted over /proc is no procfs"));
    }
    mount::attach(mount, place)
}

/// The directory for a filesystem of the kernel's. Such a path must not be a symbolic link in any part: it could point
/// into a volume, where somebody else exchanges it between the mount and the masking of what must not be seen
/// (CVE-2019-19921, CVE-2023-27561, CVE-2026-88264).
pub(super) fn for_kernel(root: BorrowedFd<'_>, target: &Path) -> io::Result<OwnedFd> {
    inroot::mkdir_plain(root, target, Mode::from_raw_mode(0o755)).map_err(|error| {
        if error.raw_os_error() != Some(Errno::LOOP.raw_os_error()) {
            return error;
        }
        let path = target.display();
        io::Error::other(format!(
            "a part of {path} is a symbolic link in the image; it has to be a directory or nothing"
        ))
    })
}

/// Whether a target belongs to the kernel's filesystems, whatever the image has there.
pub(super) fn is_kernels(target: &Path) -> bool {
    ["/proc", "/sys", "/dev"].iter().any(|top| target.starts_with(top))
}

/// Whether `fd` lies in a procfs.
pub(super) fn is_procfs(fd: impl AsFd) -> io::Result<bool> {
    has_magic(fd, PROC_SUPER_MAGIC)
}

/// Makes sure that `fd` is a terminal multiplexer and not what somebody has put in its place (CVE-2025-52565).
pub(super) fn expect_multiplexer(fd: impl AsFd) -> io::Result<()> {
    let what = "/dev/pts/ptmx in the container is no terminal multiplexer";
    if has_magic(&fd, DEVPTS_SUPER_MAGIC)? && is_device(fd, 5, 2)? { Ok(()) } else { Err(io::Error::other(what)) }
}

/// Makes sure that `fd` is the device that swallows everything. What masks a file must not show another (CVE-2025-31133).
pub(super) fn expect_null(fd: impl AsFd) -> io::Result<()> {
    if is_device(fd, 1, 3)? { Ok(()) } else { Err(io::Error::other("the host's /dev/null is not the null device")) }
}

fn is_device(fd: impl AsFd, major: u32, minor: u32) -> io::Result<bool> {
    let stat = fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(major, minor))
}

fn has_magic(fd: impl AsFd, magic: i64) -> io::Result<bool> {
    // The type differs between architectures.
    Ok(fstatfs(fd)?.f_type as i64 == magic)
}

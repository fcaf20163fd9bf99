//! Project quotas: what a tree of files uses, and the most that it may, kept by its filesystem (ext4, XFS, F2FS).
//!
//! Each file has a project's number, which it gets from the folder that it is made in where that hands it down. Who asks
//! about a project, or limits it, names any file or folder of the filesystem.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801c_581f_u32 as libc::Ioctl;
const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

const PRJQUOTA: libc::c_int = 2;
const Q_GETQUOTA: libc::c_int = 0x80_0007;
const Q_SETQUOTA: libc::c_int = 0x80_0008;
/// Of XFS by its origin, answered by every filesystem with quotas.
const Q_XGETQSTATV: libc::c_int = 0x5808;
const FS_QSTATV_VERSION1: u8 = 1;
const FS_QUOTA_PDQ_ACCT: u16 = 1 << 4;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
const QIF_BLIMITS: u32 = 1;

/// The unit of limits, in bytes.
const UNIT: u64 = 1024;

/// Attributes of a file or folder that have to do with projects, as in `struct fsxattr` (linux/fs.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Attributes {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    project: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

impl Attributes {
    /// Those of an open file or folder.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let mut attributes = Self::default();
        // SAFETY: the kernel fills a structure of exactly this layout.
        match unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) } {
            0 => Ok(attributes),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Gives them to an open file or folder, for which its owner's rights are needed.
    pub fn set(&self, file: impl AsFd) -> io::Result<()> {
        // SAFETY: the kernel reads a structure of exactly this layout.
        match unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_FSSETXATTR, &raw const *self) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The project that a folder hands down to what is made in it.
    pub fn project(&self) -> Option<u32> {
        (self.xflags & FS_XFLAG_PROJINHERIT != 0).then_some(self.project)
    }

    /// The same with another project, or with none.
    #[must_use]
    pub fn with(mut self, project: Option<u32>) -> Self {
        self.project = project.unwrap_or(0);
        match project {
            Some(_) => self.xflags |= FS_XFLAG_PROJINHERIT,
            None => self.xflags &= !FS_XFLAG_PROJINHERIT,
        }
        self
    }
}

/// What a project has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes that its files take.
    pub bytes: u64,
    /// Files, folders and whatever else has an inode.
    pub inodes: u64,
    /// Bytes that they may take.
    pub limit: Option<u64>,
}

/// `struct fs_quota_statv` (linux/dqblk_xfs.h); only the beginning is of interest.
#[repr(C, align(8))]
struct State {
    version: u8,
    pad: u8,
    flags: u16,
    rest: [u8; 156],
}

/// Fails where the filesystem of an open file does not count projects and hold them to their limits.
pub fn check(file: impl AsFd) -> io::Result<()> {
    let mut state = State { version: FS_QSTATV_VERSION1, pad: 0, flags: 0, rest: [0; 156] };
    // SAFETY: the kernel reads the version and fills a structure of this version's size.
    unsafe { call(file, Q_XGETQSTATV, 0, (&raw mut state).cast()) }?;
    let wanted = FS_QUOTA_PDQ_ACCT | FS_QUOTA_PDQ_ENFD;
    if state.flags & wanted == wanted { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

/// What a project of the filesystem of an open file has. Nothing, if there is no such project.
pub fn get(file: impl AsFd, project: u32) -> io::Result<Quota> {
    // SAFETY: plain numbers, for which 0 is a value.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills a structure of exactly this layout.
    match unsafe { call(file, Q_GETQUOTA, project, (&raw mut block).cast()) } {
        // XFS has no entry for those that never had a file.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Quota::default()),
        done => done?,
    }
    let limit = (block.dqb_bhardlimit > 0).then(|| block.dqb_bhardlimit.saturating_mul(UNIT));
    Ok(Quota { bytes: block.dqb_curspace, inodes: block.dqb_curinodes, limit })
}

/// Holds a project to this many bytes from now on, or to no number of them. Needs CAP_SYS_ADMIN.
pub fn limit(file: impl AsFd, project: u32, bytes: Option<u64>) -> io::Result<()> {
    // SAFETY: plain numbers, for which 0 is a value.
    let mut block: libc::dqblk = unsafe { std::mem::zeroed() };
    // 0 is no limit.
    block.dqb_bhardlimit = bytes.map_or(0, |bytes| (bytes / UNIT).max(1));
    block.dqb_valid = QIF_BLIMITS;
    // SAFETY: the kernel reads a structure of exactly this layout.
    unsafe { call(file, Q_SETQUOTA, project, (&raw mut block).cast()) }
}

/// `quotactl_fd(2)`, Linux 5.14.
///
/// # Safety
/// `data` has to be what the command takes.
unsafe fn call(file: impl AsFd, command: libc::c_int, project: u32, data: *mut libc::c_void) -> io::Result<()> {
    let file = file.as_fd();
    // SAFETY: the descriptor is open, the rest is the caller's promise.
    match unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command << 8 | PRJQUOTA, project, data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_the_kernel_has_its_size() {
        assert_eq!((size_of::<Attributes>(), size_of::<State>(), size_of::<libc::dqblk>()), (28, 160, 72));
    }

    #[test]
    fn only_a_project_that_is_handed_down_counts() {
        let plain = Attributes { xflags: 0x40, extsize: 5, project: 7, ..Attributes::default() };
        assert_eq!(plain.project(), None);
        let given = plain.with(Some(9));
        assert_eq!((given.project(), given.xflags, given.extsize), (Some(9), 0x240, 5));
        assert_eq!(given.with(None), Attributes { project: 0, ..plain });
    }

    /// A procfs has none, on any kernel.
    #[test]
    fn a_filesystem_without_them_is_told() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert!(check(&file).is_err() && get(&file, 1).is_err() && limit(&file, 1, Some(UNIT)).is_err());
        assert!(Attributes::of(&file).is_err());
    }
}

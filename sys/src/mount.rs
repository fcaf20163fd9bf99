//! Mounts that are built detached, where nobody sees them, and attached when they are complete.

use std::{
    ffi::CString,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

/// Attributes of a mount; what is `false` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// No writing.
    pub read_only: bool,
    /// No set-user-ID.
    pub nosuid: bool,
    /// No device nodes.
    pub nodev: bool,
    /// No execution.
    pub noexec: bool,
}

/// How mounts propagate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// Into this mount.
    Slave,
    /// Both ways.
    Shared,
}

/// Value of an option of a filesystem.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// The option is a flag.
    Flag,
    /// The option takes a string.
    String(&'a str),
    /// The option takes a directory or file that is open.
    Fd(BorrowedFd<'a>),
}

/// `struct mount_attr` of Linux 5.12.
#[repr(C)]
#[derive(Debug, Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

// === impl Attributes ===

impl Attributes {
    fn bits(self) -> u64 {
        let flag = |on: bool, flag: MountAttrFlags| if on { u64::from(flag.bits()) } else { 0 };
        flag(self.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY)
            | flag(self.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID)
            | flag(self.nodev, MountAttrFlags::MOUNT_ATTR_NODEV)
            | flag(self.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC)
    }
}

/// Mounts a new filesystem, detached. Errors carry the kernel's own explanation where it gives one.
pub fn new_filesystem(fstype: &str, options: &[(&str, Value<'_>)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let explain = |e: rustix::io::Errno| explained(&context, e.into());
    for (key, value) in options {
        match value {
            Value::Flag => fsconfig_set_flag(&context, *key),
            Value::String(value) => fsconfig_set_string(&context, *key, *value),
            Value::Fd(fd) => fsconfig_set_fd(&context, *key, fd),
        }
        .map_err(explain)?;
    }
    fsconfig_create(&context).map_err(explain)?;
    let flags = MountAttrFlags::from_bits_retain(attributes.bits() as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(explain)
}

/// Whether a procfs can be made for a PID namespace that its maker is not in: option `pidns` of Linux 6.17.
pub fn proc_takes_namespace() -> bool {
    let probe = || {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let own = rustix::fs::open("/proc/self/ns/pid", rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
        fsconfig_set_fd(&context, "pidns", &own)
    };
    probe().is_ok()
}

/// A detached copy of the mount at `path` (below `dir`, if relative), with everything below it if `recursive`.
pub fn clone_path(dir: Option<BorrowedFd<'_>>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    open(dir.unwrap_or(CWD), path, recursive, OpenTreeFlags::empty())
}

/// A detached copy of the mount that `fd` (a directory or file in it) refers to.
///
/// If that mount is itself detached, this needs Linux 6.15 and fails with `EINVAL` before.
pub fn clone_fd(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    open(fd.as_fd(), Path::new(""), recursive, OpenTreeFlags::AT_EMPTY_PATH)
}

fn open(dir: BorrowedFd<'_>, path: &Path, recursive: bool, more: OpenTreeFlags) -> io::Result<OwnedFd> {
    let recursive = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive | more;
    Ok(open_tree(dir, path, flags)?)
}

/// Attaches the detached mount `mount` to the directory or file `target`, both given by descriptor.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// Sets attributes and propagation of the mount that `mount` refers to, of all below it too if `recursive`.
pub fn set(
    mount: impl AsFd,
    attributes: Attributes,
    propagation: Option<Propagation>,
    recursive: bool,
) -> io::Result<()> {
    let attr = MountAttr {
        set: attributes.bits(),
        propagation: match propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Shared) => libc::MS_SHARED,
        },
        ..MountAttr::default()
    };
    if attr.set == 0 && attr.propagation == 0 {
        return Ok(());
    }
    set_attr(mount.as_fd(), &attr, recursive)
}

/// Takes all restrictions (no writing, no set-user-ID, no devices, no execution, no symbolic links) off a detached copy of
/// a mount that nobody else sees, and cuts it off from the one that it was copied from.
pub fn unrestrict(mount: impl AsFd) -> io::Result<()> {
    let all = Attributes { read_only: true, nosuid: true, nodev: true, noexec: true };
    let clear = all.bits() | u64::from(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW.bits());
    set_attr(mount.as_fd(), &MountAttr { clear, propagation: libc::MS_PRIVATE, ..MountAttr::default() }, false)
}

/// Shows the owners of files as the user namespace `ids` maps them, in a detached mount that nobody else sees, with all
/// below it if `recursive`. What is 0 on disk is the namespace's root.
pub fn map_ids(mount: impl AsFd, ids: impl AsFd, recursive: bool) -> io::Result<()> {
    let userns_fd = u64::try_from(ids.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let attr = MountAttr { set: libc::MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() };
    set_attr(mount.as_fd(), &attr, recursive)
}

fn set_attr(mount: BorrowedFd<'_>, attr: &MountAttr, recursive: bool) -> io::Result<()> {
    let path = CString::default();
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is a C string and `attr` a mount_attr of the size given; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Adds what the kernel has to say about a failed fsopen context to the error.
fn explained(context: &OwnedFd, error: io::Error) -> io::Error {
    let mut said = String::new();
    let mut line = [0; 256];
    let Ok(copy) = context.try_clone() else { return error };
    let mut file = std::fs::File::from(copy);
    while let Ok(n) = file.read(&mut line) {
        if n == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line[..n]);
        let text = text.trim_end();
        // Each line begins with its weight: e, w or i.
        said.push_str(if said.is_empty() { "" } else { "; " });
        said.push_str(text.strip_prefix("e ").or_else(|| text.strip_prefix("w ")).unwrap_or(text));
    }
    if said.is_empty() { error } else { io::Error::new(error.kind(), format!("{error}: {said}")) }
}

#[cfg(test)]
mod tests;

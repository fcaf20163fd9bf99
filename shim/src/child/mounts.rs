//! The plan's mounts: attached at their targets inside the root filesystem.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{Mode, OFlags, XattrFlags};
use tripod_shim_protocol::{Failure, FailureKind, FsOption, Mount, MountFlags, MountSource};
use tripod_sys::{
    inroot,
    mount::{self, Attributes, Value},
};

use super::{cgroups, place, sources::Source};
use crate::fault::{Blame, failure};

/// Attaches one mount of the plan; a filesystem of the container's own with a SELinux label, if there are any. A procfs
/// is that of the PID namespace `pids`, or of the caller's.
pub(super) fn attach(
    root: BorrowedFd<'_>,
    mount: &Mount,
    source: Source,
    label: Option<&str>,
    pids: Option<&OwnedFd>,
) -> Result<(), Failure> {
    match (source, &mount.source) {
        (Source::Mount(fd), _) => attach_any(root, &fd, mount),
        (Source::Hierarchies(all), _) => cgroups::attach(root, &mount.target, all, mount.flags, label),
        (Source::New, MountSource::Filesystem { fstype, options }) => {
            attach_dir(root, &new(mount, fstype, options, label, pids)?, &mount.target)
        }
        (Source::New, _) => {
            let new =
                mount::new_filesystem("cgroup2", &[], attributes(mount.flags)).plan(|| step(mount, " (cgroup2)"))?;
            attach_dir(root, &new, &mount.target)
        }
    }
}

/// Makes a new filesystem.
pub(super) fn new(
    mount: &Mount,
    fstype: &str,
    options: &[FsOption],
    label: Option<&str>,
    pids: Option<&OwnedFd>,
) -> Result<OwnedFd, Failure> {
    let step = || step(mount, &format!(" ({fstype})"));
    let mut options: Vec<_> =
        options.iter().map(|o| (o.key.as_str(), o.value.as_deref().map_or(Value::Flag, Value::String))).collect();
    if matches!(fstype, "tmpfs" | "devpts") {
        options.extend(context(label));
    }
    if fstype == "proc" {
        options.extend(pids.map(|pids| ("pidns", Value::Fd(pids.as_fd()))));
    }
    let new = mount::new_filesystem(fstype, &options, attributes(mount.flags)).plan(step)?;
    if let Some(label) = label.filter(|_| fstype == "mqueue") {
        label_root(&new, label).plan(step)?;
    }
    Ok(new)
}

/// A procfs of the host's, without which in sight the kernel would let the root of a user namespace make none of its own.
pub(super) fn proc_in_sight() -> io::Result<OwnedFd> {
    let hidden = Attributes { nosuid: true, nodev: true, noexec: true, ..Attributes::default() };
    mount::new_filesystem("proc", &[], hidden)
}

/// The option that gives all files of a filesystem a SELinux label.
pub(super) fn context(label: Option<&str>) -> Option<(&'static str, Value<'_>)> {
    label.map(|label| ("context", Value::String(label)))
}

/// A message queue filesystem takes no such option: its directory is labelled, and what is made there inherits that.
fn label_root(mount: &OwnedFd, label: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(mount, ".", flags, Mode::empty())?;
    Ok(rustix::fs::fsetxattr(directory, "security.selinux", label.as_bytes(), XattrFlags::empty())?)
}

/// Attaches `mount` to a directory of the container, which is made if absent.
pub(super) fn attach_dir(root: BorrowedFd<'_>, mount: &OwnedFd, target: &Path) -> Result<(), Failure> {
    let place = if place::is_kernels(target) {
        place::for_kernel(root, target)
    } else {
        inroot::mkdir_all(root, target, Mode::from_raw_mode(0o755))
    };
    place.and_then(|place| place::attach(mount, place, target)).plan(|| on(target))
}

/// Attaches `fd`, a directory or a file, to the like in the container.
fn attach_any(root: BorrowedFd<'_>, fd: &OwnedFd, mount: &Mount) -> Result<(), Failure> {
    let target = mount.target.as_path();
    let step = || on(target);
    if inroot::is_dir(fd).internal(step)? {
        return attach_dir(root, fd, target);
    }
    let place = match mount.flags.over_link {
        true => inroot::touch_over_link(root, target),
        false => inroot::touch(root, target),
    };
    let place = place.plan(step)?;
    if inroot::is_dir(&place).internal(step)? {
        return Err(failure(FailureKind::Plan, step(), "the source is a file, the target is a directory"));
    }
    place::attach(fd, place, target).plan(step)
}

fn on(target: &Path) -> String {
    format!("mount on {} in the container", target.display())
}

pub(super) fn attributes(flags: MountFlags) -> Attributes {
    Attributes {
        read_only: flags.read_only || flags.recursive_read_only,
        nosuid: flags.nosuid,
        nodev: flags.nodev,
        noexec: flags.noexec,
    }
}

/// What failed, for whoever reads it.
pub(super) fn step(mount: &Mount, more: &str) -> String {
    format!("mount {}{more}", mount.target.display())
}

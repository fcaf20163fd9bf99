//! Joining the container's cgroups, and showing them inside the container.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Mode, StatxFlags, mkdirat, statx};
use tripod_shim_protocol::{CgroupPlan, Failure, MountFlags};
use tripod_sys::mount::{self, Attributes, Value};

use crate::fault::Blame;

/// Puts the calling process into all hierarchies. In the unified tree it was born where it belongs.
///
/// Of v1's two files this writes `tasks`: moving one thread needs no grace period, moving a process (`cgroup.procs`)
/// takes 5 to 15 ms. The caller has one thread.
pub(super) fn join(plan: &CgroupPlan) -> Result<(), Failure> {
    if plan.unified {
        return Ok(());
    }
    for dir in &plan.dirs {
        std::fs::write(dir.join("tasks"), "0").plan(|| format!("join cgroup {}", dir.display()))?;
    }
    Ok(())
}

/// Mounts the container's cgroups on `target`.
pub(super) fn attach(root: BorrowedFd<'_>, target: &Path, plan: &CgroupPlan, flags: MountFlags) -> Result<(), Failure> {
    let step = || format!("mount cgroups on {}", target.display());
    if plan.unified {
        let mount = mount::new_filesystem("cgroup2", &[], attributes(flags)).plan(step)?;
        return super::mounts::attach_dir(root, &mount, target);
    }
    let options = [("mode", Value::String("755")), ("size", Value::String("64k"))];
    let top =
        mount::new_filesystem("tmpfs", &options, attributes(MountFlags { read_only: false, ..flags })).plan(step)?;
    super::mounts::attach_dir(root, &top, target)?;
    for dir in &plan.dirs {
        attach_hierarchy(&top, dir, flags).plan(|| format!("{}: {}", step(), dir.display()))?;
    }
    if flags.read_only {
        let read_only = Attributes { read_only: true, ..Attributes::default() };
        mount::set(&top, read_only, None, false).plan(step)?;
    }
    Ok(())
}

fn attach_hierarchy(top: &OwnedFd, dir: &Path, flags: MountFlags) -> io::Result<()> {
    let name = hierarchy(dir)?;
    mkdirat(top, name, Mode::from_raw_mode(0o755))?;
    let mount = mount::clone_path(None, dir, false)?;
    mount::set(&mount, attributes(flags), Some(mount::Propagation::Private), false)?;
    let place = rustix::fs::openat(top, name, super::PATH, Mode::empty())?;
    mount::attach(mount, place.as_fd())?;
    // Jointly mounted controllers are looked for under each one's name.
    let joint = name.to_str().filter(|name| name.contains(','));
    for alias in joint.into_iter().flat_map(|name| name.split(',')) {
        rustix::fs::symlinkat(name, top, alias)?;
    }
    Ok(())
}

/// The name of the directory on which the hierarchy that holds `dir` is mounted: `memory`, `cpu,cpuacct`, …
fn hierarchy(dir: &Path) -> io::Result<&Path> {
    const MOUNT_ROOT: u64 = 0x2000; // STATX_ATTR_MOUNT_ROOT, Linux 5.8
    for place in dir.ancestors() {
        let stat = statx(CWD, place, AtFlags::empty(), StatxFlags::empty())?;
        if stat.stx_attributes.bits() & MOUNT_ROOT != 0 {
            let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            return Ok(Path::new(name));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn attributes(flags: MountFlags) -> Attributes {
    Attributes { read_only: flags.read_only, nosuid: true, nodev: true, noexec: true }
}

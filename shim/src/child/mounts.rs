//! The plan's mounts: each is built detached, then attached at its target inside the root filesystem.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::Mode;
use tripod_shim_protocol::{Failure, FailureKind, LaunchPlan, Mount, MountFlags, MountSource, Propagation};
use tripod_sys::{
    inroot,
    mount::{self, Attributes, Value},
};

use crate::{
    fault::{Blame, failure},
    pod::Pod,
};

/// Mounts that were opened before the mount namespace was cut off from the host's.
#[derive(Debug)]
pub(super) struct Sources {
    /// As many as the plan has mounts, in reverse order; `None` where the mount needs no host.
    reversed: Vec<Option<OwnedFd>>,
}

// === impl Sources ===

impl Sources {
    /// Opens all that comes from the host. This must happen while the namespace is still a peer of the host's:
    /// a copy made later could not share mounts both ways.
    pub(super) fn open(plan: &LaunchPlan, pod: &Pod, detached: Vec<OwnedFd>) -> Result<Sources, Failure> {
        let mut detached: Vec<_> = detached.into_iter().map(Some).collect();
        let mut reversed = Vec::with_capacity(plan.mounts.len());
        for mount in plan.mounts.iter().rev() {
            let fd = match &mount.source {
                MountSource::Bind { path, recursive } => Some(
                    mount::clone_path(None, path, *recursive)
                        .plan(|| step(mount, &format!(" from {}", path.display())))?,
                ),
                MountSource::PodShm => Some(pod.shm.open().internal(|| step(mount, ""))?),
                MountSource::Detached(index) => Some(take(&mut detached, *index, mount)?),
                MountSource::Filesystem { .. } | MountSource::Cgroups => None,
            };
            if let Some(fd) = &fd {
                adjust(fd, mount).plan(|| step(mount, ""))?;
            }
            reversed.push(fd);
        }
        Ok(Sources { reversed })
    }

    /// Attaches the next mount of the plan.
    pub(super) fn attach(&mut self, root: BorrowedFd<'_>, mount: &Mount, plan: &LaunchPlan) -> Result<(), Failure> {
        let source = self.reversed.pop().flatten();
        match (&mount.source, source) {
            (MountSource::Cgroups, _) => super::cgroups::attach(root, &mount.target, &plan.cgroups, mount.flags),
            (MountSource::Filesystem { fstype, options }, _) => {
                let options: Vec<_> = options
                    .iter()
                    .map(|o| (o.key.as_str(), o.value.as_deref().map_or(Value::Flag, Value::String)))
                    .collect();
                let new = mount::new_filesystem(fstype, &options, attributes(mount.flags))
                    .plan(|| step(mount, &format!(" ({fstype})")))?;
                attach_dir(root, &new, &mount.target)
            }
            (_, Some(source)) => attach(root, &source, &mount.target),
            (_, None) => Err(failure(FailureKind::Internal, step(mount, ""), "its source was not opened")),
        }
    }
}

/// Attaches `mount` to a directory of the container, which is made if absent.
pub(super) fn attach_dir(root: BorrowedFd<'_>, mount: &OwnedFd, target: &Path) -> Result<(), Failure> {
    let place = inroot::mkdir_all(root, target, Mode::from_raw_mode(0o755));
    place
        .and_then(|place| mount::attach(mount, place))
        .plan(|| format!("mount on {} in the container", target.display()))
}

/// Attaches `mount`, a directory or a file, to the like in the container.
fn attach(root: BorrowedFd<'_>, mount: &OwnedFd, target: &Path) -> Result<(), Failure> {
    let step = || format!("mount on {} in the container", target.display());
    if inroot::is_dir(mount).internal(step)? {
        return attach_dir(root, mount, target);
    }
    let place = inroot::touch(root, target).plan(step)?;
    if inroot::is_dir(&place).internal(step)? {
        return Err(failure(FailureKind::Plan, step(), "the source is a file, the target is a directory"));
    }
    mount::attach(mount, place).plan(step)
}

fn take(detached: &mut [Option<OwnedFd>], index: usize, mount: &Mount) -> Result<OwnedFd, Failure> {
    let fd = index.checked_sub(1).and_then(|index| detached.get_mut(index)).and_then(Option::take);
    fd.ok_or_else(|| {
        let text = format!("file descriptor {index} did not come with the plan, or is used twice");
        failure(FailureKind::Plan, step(mount, ""), text)
    })
}

/// Gives a mount its attributes and its propagation, while nobody sees it.
fn adjust(fd: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let flags = mount.flags;
    let propagation = match mount.propagation {
        None | Some(Propagation::Private) => mount::Propagation::Private,
        Some(Propagation::HostToContainer) => mount::Propagation::Slave,
        Some(Propagation::Bidirectional) => mount::Propagation::Shared,
    };
    let none = Attributes::default();
    mount::set(fd, none, Some(propagation), true)?;
    if flags.recursive_read_only {
        mount::set(fd, Attributes { read_only: true, ..none }, None, true)?;
    }
    mount::set(fd, attributes(flags), None, false)
}

fn attributes(flags: MountFlags) -> Attributes {
    Attributes {
        read_only: flags.read_only || flags.recursive_read_only,
        nosuid: flags.nosuid,
        nodev: flags.nodev,
        noexec: flags.noexec,
    }
}

fn step(mount: &Mount, more: &str) -> String {
    format!("mount {}{more}", mount.target.display())
}

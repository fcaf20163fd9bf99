//! What a container takes along from the host, opened while the host's mounts are still in sight.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Uid},
    io::Errno,
};
use tripod_shim_protocol::{DeviceNode, Failure, FailureKind, LaunchPlan, Mount, MountSource, Propagation};
use tripod_sys::{
    caps,
    mount::{self, Attributes, Value},
    root,
};

use super::{cgroups, devices::make_node, mounts, place};
use crate::{
    fault::{Blame, failure},
    pod::Pod,
    user::UserNamespace,
};

const CAP_MKNOD: u32 = 27;

/// Copies of mounts of the host, attached nowhere.
#[derive(Debug)]
pub(super) struct Sources {
    /// One for each mount of the plan.
    pub(super) mounts: Vec<Source>,
    /// One for each device of the plan where nodes cannot be made, else none.
    pub(super) devices: Vec<OwnedFd>,
    /// The host's `/dev/null`, if a path is to be masked.
    pub(super) null: Option<OwnedFd>,
}

/// Where one mount comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// It is made in the container.
    New,
    /// It is this one.
    Mount(OwnedFd),
    /// v1 hierarchies, each with the name of the directory on which the host has it.
    Hierarchies(Vec<(PathBuf, OwnedFd)>),
}

// === impl Sources ===

impl Sources {
    /// Opens all that the plan names. A copy of a shared mount is a peer of the original wherever it is attached later.
    pub(super) fn open(plan: &LaunchPlan, pod: &Pod, detached: Vec<OwnedFd>) -> Result<Sources, Failure> {
        let mut detached: Vec<_> = detached.into_iter().map(Some).collect();
        let mounts =
            plan.mounts.iter().map(|mount| source(mount, plan, pod, &mut detached)).collect::<Result<_, _>>()?;
        let null = match plan.masked_paths.is_empty() {
            true => None,
            false => Some(null().internal(|| "open /dev/null".into())?),
        };
        Ok(Sources { mounts, devices: devices(plan, pod)?, null })
    }
}

/// What is made of a plan for a pod with a user namespace when an OCI runtime makes the rest.
#[derive(Debug)]
pub(super) struct Made {
    /// Mounts, each with its index.
    pub(super) mounts: Vec<(usize, OwnedFd)>,
    /// All devices.
    pub(super) devices: Vec<OwnedFd>,
}

// === impl Made ===

impl Made {
    pub(super) fn open(plan: &LaunchPlan, pod: &Pod) -> Result<Made, Failure> {
        let made = plan.mounts.iter().enumerate().filter(|(_, mount)| mount.takes_hosts_rights());
        let open = |(index, mount)| match source(mount, plan, pod, &mut [])? {
            Source::Mount(fd) => Ok(Some((index, fd))),
            Source::New | Source::Hierarchies(_) => Ok(None),
        };
        let mounts = made.filter_map(|mount| open(mount).transpose()).collect::<Result<_, _>>()?;
        Ok(Made { mounts, devices: devices(plan, pod)? })
    }
}

fn source(mount: &Mount, plan: &LaunchPlan, pod: &Pod, detached: &mut [Option<OwnedFd>]) -> Result<Source, Failure> {
    let step = || mounts::step(mount, "");
    let fd = match &mount.source {
        // The kernel lets the root of a user namespace make one only where another one is in sight.
        MountSource::Filesystem { fstype, options } if fstype == "sysfs" && pod.user.is_some() => {
            return mounts::new(mount, fstype, options, None, None).map(Source::Mount);
        }
        MountSource::Filesystem { .. } => return Ok(Source::New),
        MountSource::Cgroups if plan.cgroups.unified => return Ok(Source::New),
        MountSource::Cgroups => return cgroups::hierarchies(&plan.cgroups, mount.flags).map(Source::Hierarchies),
        MountSource::Bind { path, recursive } => mount::clone_path(None, path, *recursive)
            .plan(|| mounts::step(mount, &format!(" from {}", path.display())))?,
        MountSource::PodShm => pod.shm.open().internal(step)?,
        MountSource::Detached(index) => take(detached, *index, mount)?,
    };
    adjust(&fd, mount).plan(step)?;
    if let Some(user) = pod.user.as_ref().filter(|_| mount.map_ids) {
        map_ids(&fd, user).plan(|| mounts::step(mount, ": map the owners of its files"))?;
    }
    Ok(Source::Mount(fd))
}

/// With what is mounted below, or without it if a filesystem there cannot do that: its files then belong to nobody.
fn map_ids(fd: &OwnedFd, user: &UserNamespace) -> io::Result<()> {
    match mount::map_ids(fd, user.as_ids(), true) {
        Err(error) if invalid(&error) => mount::map_ids(fd, user.as_ids(), false).map_err(|error| {
            let text = "the filesystem does not take ID mappings: use another one, or hostUsers: true";
            if invalid(&error) { io::Error::other(text) } else { error }
        }),
        done => done,
    }
}

fn invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

fn take(detached: &mut [Option<OwnedFd>], index: usize, mount: &Mount) -> Result<OwnedFd, Failure> {
    let fd = index.checked_sub(1).and_then(|index| detached.get_mut(index)).and_then(Option::take);
    fd.ok_or_else(|| {
        let text = format!("file descriptor {index} did not come with the plan, or is used twice");
        failure(FailureKind::Plan, mounts::step(mount, ""), text)
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
    // A mount below that may do what the one above may not would be a way around it. Read-only is the exception: CRI has
    // the recursive form of its own.
    let restricted = Attributes { read_only: false, ..mounts::attributes(flags) };
    mount::set(fd, restricted, None, true)?;
    mount::set(fd, mounts::attributes(flags), None, false)
}

/// The devices of a plan, as far as they are not made in the container.
fn devices(plan: &LaunchPlan, pod: &Pod) -> Result<Vec<OwnedFd>, Failure> {
    if plan.devices.is_empty() {
        return Ok(Vec::new());
    }
    match (&pod.user, may_make_nodes()?) {
        (Some(user), true) => nodes(&plan.devices, user, &pod.empty),
        (None, true) => Ok(Vec::new()),
        (_, false) => hosts(&plan.devices),
    }
}

/// The host's own nodes, for a shim that is not allowed to make any; only those that are what the plan says will do.
fn hosts(plan: &[DeviceNode]) -> Result<Vec<OwnedFd>, Failure> {
    let host = |device: &DeviceNode| {
        let number = rustix::fs::makedev(device.major, device.minor);
        if rustix::fs::stat(&device.path)?.st_rdev != number {
            return Err(io::Error::other("making nodes is not allowed, and the host's has other numbers"));
        }
        private(&device.path)
    };
    plan.iter().map(|device| host(device).plan(|| format!("take device {}", device.path.display()))).collect()
}

fn null() -> io::Result<OwnedFd> {
    let null = private(Path::new("/dev/null"))?;
    place::expect_null(&null)?;
    Ok(null)
}

fn may_make_nodes() -> Result<bool, Failure> {
    let held = caps::get().internal(|| "read capabilities".into())?.permitted;
    Ok(held & (1 << CAP_MKNOD) != 0)
}

/// Nodes for a container that cannot make any: each a mount of its own, from a filesystem that nobody sees. They belong
/// to whom the plan says, in the pod's user namespace.
fn nodes(plan: &[DeviceNode], user: &UserNamespace, empty: &OwnedFd) -> Result<Vec<OwnedFd>, Failure> {
    let attributes = Attributes { nosuid: true, noexec: true, ..Attributes::default() };
    let store = mount::new_filesystem("tmpfs", &[("mode", Value::String("700"))], attributes);
    let store = store.internal(|| "make a filesystem for device nodes".into())?;
    let ids = user.plan.mapping;
    let make = |(number, device): (usize, &DeviceNode)| {
        let name = number.to_string();
        make_node(&store, Path::new(&name), device)?;
        let owner = ids.uids.to_host(device.uid).map(Uid::from_raw);
        let group = ids.gids.to_host(device.gid).map(Gid::from_raw);
        rustix::fs::chownat(&store, &name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        io::Result::Ok(rustix::fs::openat(&store, &name, flags, Mode::empty())?)
    };
    let step = |device: &DeviceNode| format!("make device {}", device.path.display());
    let made = plan.iter().enumerate().map(|numbered| make(numbered).plan(|| step(numbered.1)));
    let made = made.collect::<Result<Vec<_>, _>>()?;
    copies(&made)
        .or_else(|error| if invalid(&error) { copies_of_standing(&store, &made, empty) } else { Err(error) })
        .internal(|| "take device nodes along".into())
}

fn copies(nodes: &[OwnedFd]) -> io::Result<Vec<OwnedFd>> {
    nodes.iter().map(|node| mount::clone_fd(node, false)).collect()
}

/// Before Linux 6.15 a mount has to stand in the caller's namespace to be copied from. The process has one thread.
fn copies_of_standing(store: &OwnedFd, nodes: &[OwnedFd], empty: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let home = root::own()?;
    let copied = root::leave_for(empty, store).and_then(|()| copies(nodes));
    root::enter(home)?;
    copied
}

fn private(path: &Path) -> io::Result<OwnedFd> {
    let mount = mount::clone_path(None, path, false)?;
    mount::set(&mount, Attributes::default(), Some(mount::Propagation::Private), false)?;
    Ok(mount)
}

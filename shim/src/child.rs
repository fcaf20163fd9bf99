//! What a forked child does on its way to becoming a container's process.
//!
//! It starts as a copy of the shim with all rights and the host in sight, and gives up one after the other. Steps that
//! need the host's paths therefore come first. Any failure is told to the shim over the channel, and the child ends.

mod cgroups;
mod devices;
pub(crate) mod hooks;
mod identity;
mod labels;
mod masks;
mod mounts;
mod place;
mod process;
mod program;
pub(crate) mod runtime;
mod seccomp;
mod sources;
pub(crate) mod terminal;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{
        LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces,
    },
};
use tripod_shim_protocol::{
    CgroupPlan, EXIT_START_ERROR, Failure, FailureKind, HookedPlan, LaunchPlan, PidNamespace, ProcessPlan,
    oci::bundle::ROOTFS,
};
use tripod_sys::{inroot, mount, namespace, root};

pub(crate) use self::cgroups::Doors;
use self::sources::Sources;
use crate::{
    fault::{Blame, failure},
    pod::Pod,
    start::Reporter,
    user::{self, UserNamespace},
};

/// Opens a mere handle.
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Standard input, output and error of a new process.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Three descriptors.
    Fds([OwnedFd; 3]),
    /// A terminal from the container's own devpts, which the child allocates.
    Terminal,
}

/// All that the first process of a container needs.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) plan: &'a LaunchPlan,
    pub(crate) pod: &'a Pod,
    pub(crate) rootfs: OwnedFd,
    /// The mounts that travelled with the plan; index 0 is the plan's descriptor 1.
    pub(crate) detached: Vec<OwnedFd>,
    pub(crate) stdio: Stdio,
    pub(crate) pids: Option<BorrowedFd<'a>>,
    pub(crate) hooks: Option<&'a HookedPlan>,
}

/// All that an exec needs.
#[derive(Debug)]
pub(crate) struct Exec<'a> {
    pub(crate) process: &'a ProcessPlan,
    pub(crate) cgroups: &'a CgroupPlan,
    pub(crate) doors: &'a Doors,
    /// The container's first process, whose namespaces are entered.
    pub(crate) container: BorrowedFd<'a>,
    /// The pod's user namespace, if it has one of its own.
    pub(crate) user: Option<&'a UserNamespace>,
    /// Its PID on the host.
    pub(crate) first: i32,
    pub(crate) cgroup_namespace: bool,
    pub(crate) stdio: Stdio,
    /// The PID namespace that is entered last, by a process in it: see [`process::become_program`].
    pub(crate) pids: Option<BorrowedFd<'a>>,
}

/// A child inside its namespaces, with all that it took along.
#[derive(Debug)]
struct Ready<'a> {
    process: &'a ProcessPlan,
    stdio: [OwnedFd; 3],
    listener: Option<seccomp::Listener>,
    /// A process in the PID namespace that is entered last, or that namespace.
    pids: Option<OwnedFd>,
    hooks: Option<&'a HookedPlan>,
}

/// What a container's first process has taken along from the host.
#[derive(Debug)]
struct Taken<'a> {
    plan: &'a LaunchPlan,
    pod: &'a Pod,
    rootfs: OwnedFd,
    sources: Sources,
    stdio: Stdio,
    listener: Option<seccomp::Listener>,
    /// The PID namespace that is entered last. By a process in it the root of a user namespace could not enter it.
    pid_namespace: Option<OwnedFd>,
    hooks: Option<&'a HookedPlan>,
    /// A procfs to be in sight, for the root of a user namespace that begins with a copy of the host's mounts.
    proc: Option<OwnedFd>,
}

/// Becomes the first process of a container; returns only when that failed.
pub(crate) fn container(container: Container<'_>, mut reporter: Reporter) -> i32 {
    let taken = match take_along(container, &mut reporter) {
        Ok(taken) => taken,
        Err(failure) => {
            reporter.failed(failure);
            return EXIT_START_ERROR;
        }
    };
    match &taken.pod.user {
        Some(user) if taken.plan.pid == PidNamespace::Container => {
            // A PID namespace belongs to the user namespace of whoever makes it.
            let heir = reporter.testament().internal(|| "copy the channel to the shim".into()).map(|testament| {
                let step = || "make a PID namespace".to_owned();
                let made = user.enter();
                let made = made.and_then(|()| user::heir(move || go_on(taken, reporter)).internal(step));
                testament.say(made)
            });
            heir.unwrap_or(EXIT_START_ERROR)
        }
        Some(user) => match user.enter() {
            Ok(()) => go_on(taken, reporter),
            Err(failure) => {
                reporter.failed(failure);
                EXIT_START_ERROR
            }
        },
        None => go_on(taken, reporter),
    }
}

/// What the first process does once it is in its user and PID namespaces.
fn go_on(taken: Taken<'_>, mut reporter: Reporter) -> i32 {
    match enter_new(taken, &mut reporter) {
        Ok(ready) => process::become_program(ready, reporter),
        Err(failure) => {
            reporter.failed(failure);
            EXIT_START_ERROR
        }
    }
}

/// Becomes a further process of a container; returns only when that failed.
pub(crate) fn exec(exec: Exec<'_>, mut reporter: Reporter) -> i32 {
    match enter_running(exec, &mut reporter) {
        Ok(ready) => process::become_program(ready, reporter),
        Err(failure) => {
            reporter.failed(failure);
            EXIT_START_ERROR
        }
    }
}

/// All that takes the rights of the host's root and the sight of its files.
fn take_along<'a>(container: Container<'a>, reporter: &mut Reporter) -> Result<Taken<'a>, Failure> {
    let Container { plan, pod, rootfs, detached, stdio, pids, hooks } = container;
    reporter.mark("clone");
    hide_from_tracers();
    rustix::process::umask(Mode::empty());
    process::set_oom_score(&plan.process)?;
    Doors::open(&plan.cgroups)?.enter(&plan.cgroups, None)?;
    if plan.cgroup_namespace && pod.user.is_none() {
        namespace::unshare(UnshareFlags::NEWCGROUP).internal(|| "make a cgroup namespace".into())?;
    }
    let early = early(hooks).is_some();
    if !early {
        labels::announce(&plan.process)?;
    }
    leave_keyring();
    reporter.mark("cgroups");

    let listener = seccomp::listener(&plan.process, None)?;
    let sources = Sources::open(plan, pod, detached)?;
    mount::set(&rootfs, mount::Attributes::default(), Some(mount::Propagation::Private), true)
        .internal(|| "make the root filesystem private".into())?;
    if let Some(user) = &pod.user {
        process::provide(&plan.process, user, &stdio)?;
    }
    let pid_namespace = pids.map(namespace_of).transpose().internal(|| "open the PID namespace".into())?;
    let mut proc = None;
    if !early {
        root::enter(&pod.empty).internal(|| "leave the host's mounts".into())?;
    } else if pod.user.is_some() {
        proc = Some(mounts::proc_in_sight().internal(|| "make a procfs".into())?);
    }
    Ok(Taken { plan, pod, rootfs, sources, stdio, listener, pid_namespace, hooks, proc })
}

/// The hooks of a container of which some run while the host's root directory is in sight.
fn early(hooks: Option<&HookedPlan>) -> Option<&HookedPlan> {
    hooks.filter(|hooks| hooks.has(&hooks::EARLY))
}

/// The PID namespace that a process is in. The caller's children are not born there.
fn namespace_of(process: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let own = File::open("/proc/self/ns/pid")?;
    move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)?;
    let found = File::open("/proc/self/ns/pid_for_children");
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    Ok(found?.into())
}

fn enter_new<'a>(taken: Taken<'a>, reporter: &mut Reporter) -> Result<Ready<'a>, Failure> {
    let Taken { plan, pod, rootfs, sources, stdio, mut listener, pid_namespace, hooks, proc } = taken;
    if pod.user.is_some() {
        if plan.cgroup_namespace {
            namespace::unshare(UnshareFlags::NEWCGROUP).internal(|| "make a cgroup namespace".into())?;
        }
        // The one from before belongs to nobody here.
        leave_keyring();
        if let Some(listener) = &mut listener {
            listener.name_caller(&plan.process)?;
        }
    }
    match early(hooks) {
        None => root::begin_with(&rootfs),
        Some(hooks) => root::begin_in_copy(proc.iter().chain([&rootfs]), &hooks.bundle.join(ROOTFS)),
    }
    .internal(|| "make a mount namespace".into())?;
    let root = rootfs.as_fd();
    for (mount, source) in plan.mounts.iter().zip(sources.mounts) {
        mounts::attach(root, mount, source, plan.mount_label.as_deref(), pid_namespace.as_ref())?;
    }
    devices::make_all(root, plan, sources.devices)?;
    let stdio = match stdio {
        Stdio::Fds(fds) => fds,
        Stdio::Terminal => terminal::open(root, true, reporter)?,
    };
    if let Some(hooks) = early(hooks) {
        let paused = reporter.pause().internal(|| "wait for hooks".into());
        paused.and_then(|()| hooks::in_container(hooks, root))?;
        labels::announce(&plan.process)?;
        reporter.mark("hooks");
    }
    masks::hide(root, &plan.masked_paths, sources.null, plan.mount_label.as_deref())?;
    masks::protect(root, &plan.read_only_paths)?;
    // While it can still be made. What is wrong with it is told when it is entered.
    let _ = inroot::mkdir_all(root, &plan.process.cwd, Mode::from_raw_mode(0o755));
    if plan.rootfs.read_only {
        let read_only = mount::Attributes { read_only: true, ..mount::Attributes::default() };
        mount::set(root, read_only, None, false).internal(|| "make the root filesystem read-only".into())?;
    }
    root::replace(root).internal(|| "change to the container's root filesystem".into())?;
    reporter.mark("mounts");
    Ok(Ready { process: &plan.process, stdio, listener, pids: pid_namespace, hooks })
}

fn enter_running<'a>(exec: Exec<'a>, reporter: &mut Reporter) -> Result<Ready<'a>, Failure> {
    reporter.mark("clone");
    hide_from_tracers();
    rustix::process::umask(Mode::empty());
    process::set_oom_score(exec.process)?;
    exec.doors.enter(exec.cgroups, Some(exec.first))?;
    reporter.mark("cgroups");
    labels::announce(exec.process)?;
    let listener = seccomp::listener(exec.process, Some(exec.first))?;
    if let Some(user) = exec.user {
        process::provide(exec.process, user, &exec.stdio)?;
    }
    let mut namespaces = ThreadNameSpaceType::MOUNT;
    namespaces.set(ThreadNameSpaceType::USER, exec.user.is_some());
    namespaces.set(ThreadNameSpaceType::CONTROL_GROUP, exec.cgroup_namespace);
    move_into_thread_name_spaces(exec.container, namespaces)
        .map_err(|e| failure(FailureKind::NotRunning, "enter the container's namespaces", io::Error::from(e)))?;
    if exec.user.is_some() {
        user::become_root().internal(|| "become root of the pod's user namespace".into())?;
    }
    leave_keyring();
    reporter.mark("namespaces");
    let stdio = match exec.stdio {
        Stdio::Fds(fds) => fds,
        Stdio::Terminal => {
            let root =
                rustix::fs::open("/", PATH, Mode::empty()).internal(|| "open the container's root directory".into())?;
            terminal::open(root.as_fd(), false, reporter)?
        }
    };
    let pids = exec.pids.map(|pids| pids.try_clone_to_owned()).transpose();
    let pids = pids.internal(|| "duplicate a descriptor".into())?;
    Ok(Ready { process: exec.process, stdio, listener, pids, hooks: None })
}

/// Until the program is executed, whose own this is again: what can be seen of a process through `/proc/PID` is for root
/// of the host alone, even when it has become a user of the container (CVE-2016-9962).
fn hide_from_tracers() {
    // Cannot fail with this value.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// The daemon's session keyring is not the container's. Kernels without keys, or with the quota used up, have nothing
/// to share that would be worth failing for.
fn leave_keyring() {
    let _ = namespace::new_session_keyring();
}

/// `path` of a handle inside `root`, or `None` if there is no such thing.
fn existing(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match inroot::handle(root, path) {
        Ok(handle) => Ok(Some(handle)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

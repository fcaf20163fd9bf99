//! A child on its way to becoming an OCI runtime that makes a container.
//!
//! What travels as descriptors is attached in the bundle, in a mount namespace that only the runtime and its container
//! have: nothing of it is seen on the host, and nothing has to be unmounted there.

use std::{
    convert::Infallible,
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, chdir, getppid},
    thread::UnshareFlags,
};
use tripod_shim_protocol::{
    CgroupPlan, EXIT_START_ERROR, Failure, FailureKind, MountSource, OciPlan, Propagation, oci::bundle,
};
use tripod_sys::{
    exec::{self, Strings},
    inroot,
    mount::{self, Attributes},
    namespace, signal,
};

use super::{Doors, PATH, mounts, process, sources::Made};
use crate::{
    fault::{Blame, failure},
    pod::Pod,
    start::{LastWord, Reporter, tell_failure},
};

/// All that a runtime may find in its environment.
const ENV: [&str; 1] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

/// One call of a runtime.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) oci: &'a OciPlan,
    /// The command and its options; the container's ID is added.
    pub(crate) command: Vec<String>,
    /// Where the runtime says what goes wrong.
    pub(crate) log: PathBuf,
    pub(crate) stdio: [OwnedFd; 3],
    /// What a new container needs.
    pub(crate) new: Option<New<'a>>,
}

/// The makings of a container.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) rootfs: OwnedFd,
    /// The mounts that travelled with the plan; index 0 is the plan's descriptor 1.
    pub(crate) detached: Vec<OwnedFd>,
    /// The process whose PID namespace the container joins, if it joins one.
    pub(crate) pid: Option<Pid>,
}

/// Becomes the runtime; returns only when that failed.
pub(crate) fn runtime(call: &Call<'_>, mut reporter: Reporter) -> i32 {
    reporter.mark("clone");
    match prepare(call) {
        Ok((program, argv, env)) => {
            let (channel, word) = reporter.into_last_word();
            exec::with_stdio_and(&[channel], |kept| {
                let Err(failure) = become_program(word, kept[0], call, &program, &argv, &env);
                tell_failure(kept[0], failure);
                EXIT_START_ERROR
            })
        }
        Err(failure) => {
            reporter.failed(failure);
            EXIT_START_ERROR
        }
    }
}

fn prepare(call: &Call<'_>) -> Result<(CString, Strings, Strings), Failure> {
    let step = || "prepare a call of the OCI runtime".to_owned();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let runtime = &call.oci.runtime;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Its own process group, so that it can be killed with all that it has started.
    let _ = rustix::process::setsid();
    process::set_oom_score(&call.oci.plan.process)?;
    let mut argv = vec![text(&runtime.program)];
    argv.extend(runtime.args.iter().cloned());
    argv.extend(["--root".to_owned(), text(&runtime.root)]);
    argv.extend(["--log".to_owned(), text(&call.log), "--log-format".to_owned(), "json".to_owned()]);
    argv.extend(call.command.iter().cloned());
    argv.push(call.oci.plan.container.clone());
    let argv = Strings::new(argv.iter().map(String::as_str)).plan(step)?;
    let program = CString::new(runtime.program.as_os_str().as_bytes()).plan(step)?;
    if let Some(new) = &call.new {
        enter_cgroups(&call.oci.plan.cgroups)?;
        furnish(call.oci, new)?;
        if let Some(user) = &new.pod.user {
            process::give_to_mapped(&call.oci.plan.process, user, &call.stdio);
        }
    }
    chdir(&call.oci.bundle).internal(|| format!("change to the bundle {}", call.oci.bundle.display()))?;
    process::place(&call.stdio).internal(step)?;
    Ok((program, argv, Strings::new(ENV).internal(step)?))
}

fn become_program(
    word: LastWord,
    channel: std::os::fd::BorrowedFd<'_>,
    call: &Call<'_>,
    program: &CString,
    argv: &Strings,
    env: &Strings,
) -> Result<Infallible, Failure> {
    signal::reset_all();
    word.ready(channel, "bundle").internal(|| "report to the shim".into())?;
    exec::execve(program, argv, env)
        .map_err(|error| failure(FailureKind::Internal, format!("run {}", call.oci.runtime.program.display()), error))
}

/// Runtimes join the hierarchies of v1, and know nothing of a unified tree beside them.
fn enter_cgroups(plan: &CgroupPlan) -> Result<(), Failure> {
    if plan.unified {
        return Ok(());
    }
    let dirs = plan.dirs.iter().filter(|dir| !dir.join("tasks").exists()).cloned().collect();
    let beside = CgroupPlan { dirs, unified: false };
    Doors::open(&beside)?.enter(&beside, None)
}

/// Puts everything into the bundle.
fn furnish(oci: &OciPlan, new: &New<'_>) -> Result<(), Failure> {
    let place = |name: &str| oci.bundle.join(name);
    let shared = shared(oci)?;
    let shm = new.pod.shm.open().internal(|| "open the pod's shared memory".into())?;
    // Device nodes have the mode that the plan says.
    let umask = rustix::process::umask(Mode::empty());
    let made = new.pod.user.as_ref().map(|user| Ok((user, Made::open(&oci.plan, new.pod)?))).transpose()?;
    rustix::process::umask(umask);
    namespace::unshare(UnshareFlags::NEWNS).internal(|| "make a mount namespace".into())?;
    // What the host mounts from now on is seen; what is mounted here is not seen by the host.
    open(Path::new("/"))
        .and_then(|root| mount::set(root, Attributes::default(), Some(mount::Propagation::Slave), true))
        .internal(|| "cut the mount namespace off from the host's".into())?;
    attach(&new.rootfs, &place(bundle::ROOTFS))?;
    attach(&shm, &place(bundle::SHM))?;
    for (index, volume) in (1..).zip(&new.detached) {
        attach(volume, &place(bundle::VOLUMES).join(index.to_string()))?;
    }
    for (path, copy) in shared {
        place_over(&copy, &path)?;
    }
    if let Some(pid) = new.pid {
        link(&place(bundle::PID_NAMESPACE), &format!("/proc/{}/ns/pid", pid.as_raw_nonzero()))?;
    }
    if let Some((user, made)) = made {
        // The shim, which holds it.
        let shim = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        link(&place(bundle::USER_NAMESPACE), &format!("/proc/{shim}/fd/{}", user.as_ids().as_raw_fd()))?;
        bring(oci, &made)?;
    }
    Ok(())
}

fn link(link: &Path, target: &str) -> Result<(), Failure> {
    std::os::unix::fs::symlink(target, link).internal(|| format!("make the link {}", link.display()))
}

/// Puts into the bundle what a runtime could not make in a user namespace, and devices over those of the host's that it
/// takes.
fn bring(oci: &OciPlan, made: &Made) -> Result<(), Failure> {
    let folder = oci.bundle.join(bundle::MADE);
    let on_new = |copy: &OwnedFd, name: &str| {
        let place = folder.join(name);
        let is_dir = inroot::is_dir(copy).internal(|| format!("look at the mount for {}", place.display()))?;
        let make = || if is_dir { fs::create_dir_all(&place) } else { fs::File::create(&place).map(drop) };
        make().internal(|| format!("make {}", place.display()))?;
        place_over(copy, &place)
    };
    on_new(&mounts::proc_in_sight().internal(|| "make a procfs".into())?, "proc")?;
    for (index, mount) in &made.mounts {
        on_new(mount, &index.to_string())?;
    }
    for (index, (node, device)) in made.devices.iter().zip(&oci.plan.devices).enumerate() {
        if bundle::is_of_runtimes(&device.path) {
            place_over(node, &device.path)?;
        } else {
            on_new(node, &bundle::device(index))?;
        }
    }
    Ok(())
}

/// Copies of the sources whose mounts are to be seen by the host: peers of the host's mounts, as what is copied with the
/// namespace cannot be.
fn shared(oci: &OciPlan) -> Result<Vec<(PathBuf, OwnedFd)>, Failure> {
    let both = oci.plan.mounts.iter().filter(|mount| mount.propagation == Some(Propagation::Bidirectional));
    both.filter_map(|mount| match &mount.source {
        MountSource::Bind { path, recursive } => {
            let copy = mount::clone_path(None, path, *recursive);
            Some(copy.plan(|| format!("take {} along", path.display())).map(|copy| (path.clone(), copy)))
        }
        _ => None,
    })
    .collect()
}

fn attach(copy: &OwnedFd, path: &Path) -> Result<(), Failure> {
    mount::set(copy, Attributes::default(), Some(mount::Propagation::Private), true)
        .internal(|| format!("make the mount for {} private", path.display()))?;
    place_over(copy, path)
}

fn place_over(copy: &OwnedFd, path: &Path) -> Result<(), Failure> {
    open(path).and_then(|place| mount::attach(copy, place)).internal(|| format!("mount on {}", path.display()))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, PATH, Mode::empty())?)
}

/// A socket in a bundle on which a runtime hands over a terminal, and its name for whoever has the bundle as its working
/// directory. The path may be longer than an address can be.
pub(crate) fn console(folder: &Path) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let address = format!("/proc/self/fd/{}/{CONSOLE}", folder.as_fd().as_raw_fd());
    bind(&socket, &SocketAddrUnix::new(address)?)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// Name of that socket.
pub(crate) const CONSOLE: &str = "console.sock";

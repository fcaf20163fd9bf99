//! The last steps before the program, the same for a container's first process and for an exec.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    io::Errno,
    process::{Rlimit, getrlimit, setrlimit},
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};
use tripod_shim_protocol::{EXIT_START_ERROR, Failure, HookStage, HookedPlan, ProcessPlan, Resource};
use tripod_sys::{exec, fork, inroot, signal};

use super::{
    Ready, Stdio, hooks, identity, place,
    program::Program,
    seccomp::{self, Listener},
};
use crate::{
    fault::Blame,
    start::{LastWord, Reporter, tell_failure, tell_moved},
    tree,
    user::UserNamespace,
};

/// Sets the badness for the OOM killer through the host's procfs. Lowering it below what the shim was given takes
/// CAP_SYS_RESOURCE; a process that is a little more likely to be killed is better than none.
pub(super) fn set_oom_score(process: &ProcessPlan) -> Result<(), Failure> {
    let score = process.oom_score_adj.unwrap_or(0);
    match write_proc("/proc/self/oom_score_adj", &score.to_string()) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.internal(|| format!("set oom_score_adj to {score}")),
    }
}

/// Writes to a file of the host's procfs, which has to be one (CVE-2025-52881).
fn write_proc(path: &str, text: &str) -> io::Result<()> {
    let mut file = std::fs::File::options().write(true).open(path)?;
    if !place::is_procfs(&file)? {
        return Err(io::Error::other(format!("{path} lies in no procfs")));
    }
    io::Write::write_all(&mut file, text.as_bytes())
}

/// What the host's root has to do for a process that is about to enter a user namespace, where it has no such right.
pub(super) fn provide(process: &ProcessPlan, user: &UserNamespace, stdio: &Stdio) -> Result<(), Failure> {
    for limit in &process.rlimits {
        let resource = resource(limit.resource);
        let now = getrlimit(resource);
        let wanted = bound(limit.hard);
        // `None` is no limit.
        if now.maximum.is_some_and(|now| wanted.is_none_or(|wanted| wanted > now)) {
            setrlimit(resource, Rlimit { current: now.current, maximum: wanted })
                .plan(|| format!("raise limit {:?} to {}", limit.resource, limit.hard))?;
        }
    }
    if let Stdio::Fds(stdio) = stdio {
        give_to_mapped(process, user, stdio);
    }
    Ok(())
}

/// Gives standard input, output and error to the process' user, before it is in the user namespace.
pub(super) fn give_to_mapped(process: &ProcessPlan, user: &UserNamespace, stdio: &[OwnedFd; 3]) {
    if let Some(uid) = user.plan.mapping.uids.to_host(process.credentials.uid) {
        give_to_user(stdio, uid);
    }
}

fn bound(limit: u64) -> Option<u64> {
    (limit != u64::MAX).then_some(limit)
}

/// Becomes the plan's program; returns only when that failed.
///
/// With `pids`, somebody in that PID namespace may look into every process there, with CAP_SYS_PTRACE. So the child stays
/// outside until it has nothing of the host's any more, no descriptor, no directory, no right, and what is born inside is
/// another process, which goes on in its place.
pub(super) fn become_program(ready: Ready<'_>, reporter: Reporter) -> i32 {
    let Ready { process, stdio, listener, pids, hooks } = ready;
    let prepared = prepare(process, &stdio, pids.is_none());
    let program = match prepared {
        Err(failure) => {
            reporter.failed(failure);
            return EXIT_START_ERROR;
        }
        Ok(program) => program,
    };
    let (channel, word) = reporter.into_last_word();
    let (socket, message) = listener.map(Listener::into_parts).unzip();
    let inside = pids.is_some();
    let kept: Vec<_> = [Some(channel), pids, socket].into_iter().flatten().collect();
    exec::with_stdio_and(&kept, |kept| {
        let pids = kept.get(1).copied().filter(|_| inside);
        let listener = kept.get(1 + usize::from(inside)).copied().zip(message);
        let last = Last { process, program: &program, channel: kept[0], listener, word, hooks };
        match become_user(process, pids).and_then(|()| if inside { last.by_another() } else { last.execute(false) }) {
            Ok(code) => code,
            Err(failure) => {
                tell_failure(kept[0], failure);
                EXIT_START_ERROR
            }
        }
    })
}

/// All that still needs descriptors.
fn prepare(process: &ProcessPlan, stdio: &[OwnedFd; 3], session: bool) -> Result<Program, Failure> {
    let program = Program::new(process)?;
    give_to_user(stdio, process.credentials.uid);
    place(stdio).internal(|| "place standard input, output and error".into())?;
    if session {
        lead_session(process)?;
    }
    for limit in &process.rlimits {
        let limits = Rlimit { current: bound(limit.soft), maximum: bound(limit.hard) };
        setrlimit(resource(limit.resource), limits)
            .plan(|| format!("set limit {:?} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    Ok(program)
}

/// Begins a session, with the terminal on standard input as its own.
fn lead_session(process: &ProcessPlan) -> Result<(), Failure> {
    // Fails only for a leader of a process group, which a new child is not.
    let _ = rustix::process::setsid();
    if process.terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
            .internal(|| "make the terminal the controlling one".into())?;
    }
    Ok(())
}

/// Becomes the plan's user, in its directory. No descriptor of the host's is open any more.
fn become_user(process: &ProcessPlan, pids: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let cwd = Path::new(&process.cwd);
    let step = || format!("change to working directory {}", cwd.display());
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let entered = enter(cwd);
    if let Some(pids) = pids {
        // For children; later the right for it is gone.
        move_into_thread_name_spaces(pids, ThreadNameSpaceType::PROCESS_ID)
            .internal(|| "enter the PID namespace".into())?;
    }
    identity::take(process)?;
    match entered {
        // Root may not be allowed where the user is: network filesystems do that.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => enter(cwd).plan(step)?,
        other => other.plan(step)?,
    }
    rustix::process::umask(Mode::from_raw_mode(process.credentials.umask.unwrap_or(0o022) & 0o777));
    Ok(())
}

/// What is left to do as the user.
struct Last<'a> {
    process: &'a ProcessPlan,
    program: &'a Program,
    channel: BorrowedFd<'a>,
    listener: Option<(BorrowedFd<'a>, Vec<u8>)>,
    word: LastWord,
    hooks: Option<&'a HookedPlan>,
}

// === impl Last ===

impl Last<'_> {
    /// Executes the program; returns only when that failed.
    fn execute(self, session: bool) -> Result<i32, Failure> {
        if session {
            lead_session(self.process)?;
        }
        if let Some(hooks) = self.hooks {
            // A program of the image is confined as the container's own is.
            let confine = || self.process.seccomp.as_ref().map_or(Ok(()), |f| seccomp::load(f, self.listener.as_ref()));
            hooks::run(hooks, HookStage::StartContainer, hooks::own_pid(), &confine)?;
        }
        signal::reset_all();
        self.word.ready(self.channel, "credentials").internal(|| "report to the shim".into())?;
        if let Some(filter) = &self.process.seccomp {
            seccomp::load(filter, self.listener.as_ref())?;
        }
        match self.program.execute()? {}
    }

    /// Lets a process do that which is born in the PID namespace, and says so.
    fn by_another(self) -> Result<i32, Failure> {
        let channel = self.channel;
        let step = || "start the process in its PID namespace".into();
        let go_on = move || match self.execute(true) {
            Ok(code) => code,
            Err(failure) => {
                tell_failure(channel, failure);
                EXIT_START_ERROR
            }
        };
        let child = fork::sibling(0, go_on).internal(step)?;
        if let Err(error) = tell_moved(channel, &child) {
            let _ = signal::send(&child.pidfd, tree::SIGKILL);
            return Err(error).internal(step);
        }
        Ok(0)
    }
}

/// Enters `cwd`. Magic links are not followed: one in `/proc` could lead to where no path does (CVE-2024-21626).
fn enter(cwd: &Path) -> io::Result<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    Ok(rustix::process::fchdir(inroot::open(root, cwd, flags, Mode::empty())?)?)
}

/// Lets a user other than root open `/dev/stdout` and its like anew. Only pipes and terminals were made for this
/// process alone.
fn give_to_user(stdio: &[OwnedFd; 3], uid: u32) {
    if uid == 0 {
        return;
    }
    for fd in stdio {
        let pipe = rustix::fs::fstat(fd)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo);
        if pipe || rustix::termios::isatty(fd) {
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>);
        }
    }
}

pub(super) fn place([input, output, error]: &[OwnedFd; 3]) -> Result<(), Errno> {
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)
}

fn resource(resource: Resource) -> rustix::process::Resource {
    use rustix::process::Resource as Kernel;
    match resource {
        Resource::As => Kernel::As,
        Resource::Core => Kernel::Core,
        Resource::Cpu => Kernel::Cpu,
        Resource::Data => Kernel::Data,
        Resource::Fsize => Kernel::Fsize,
        Resource::Locks => Kernel::Locks,
        Resource::Memlock => Kernel::Memlock,
        Resource::Msgqueue => Kernel::Msgqueue,
        Resource::Nice => Kernel::Nice,
        Resource::Nofile => Kernel::Nofile,
        Resource::Nproc => Kernel::Nproc,
        Resource::Rss => Kernel::Rss,
        Resource::Rtprio => Kernel::Rtprio,
        Resource::Rttime => Kernel::Rttime,
        Resource::Sigpending => Kernel::Sigpending,
        Resource::Stack => Kernel::Stack,
    }
}

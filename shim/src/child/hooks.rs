//! Running hooks: each a child of whoever runs them, told of the container, listened to, and waited for.
//!
//! Those of the runtime's namespaces are run by a child of the shim that does nothing else; those of the container's by
//! the process that is about to become its program.

use std::{
    convert::Infallible,
    ffi::CString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::Mode,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, WaitId, WaitIdOptions, chdir, fchdir, kill_process_group, waitid},
    thread::{ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces},
};
use tripod_shim_protocol::{
    EXIT_START_ERROR, Failure, FailureKind, Hook, HookStage, HookedPlan, hook, oci::bundle::ROOTFS,
};
use tripod_sys::{
    attend::attend,
    exec::{self, Strings},
    fork,
    mount::{self, Propagation},
    root, signal,
};

use super::process;
use crate::{
    fault::{Blame, failure},
    start::{Reporter, tell_failure},
    tree::SIGKILL,
};

/// Before the container's root directory takes the place of the host's.
pub(crate) const EARLY: [HookStage; 3] = [HookStage::Prestart, HookStage::CreateRuntime, HookStage::CreateContainer];

/// Those of them that run outside of the container.
pub(crate) const BEFORE: [HookStage; 2] = [HookStage::Prestart, HookStage::CreateRuntime];

/// How long a hook that was killed may take to end.
const LAST: Duration = Duration::from_secs(5);

/// The exit code of a hook that could not be executed, as shells have it.
const NOT_EXECUTED: i32 = 127;

/// What a process that runs hooks outside of the container needs.
#[derive(Debug)]
pub(crate) struct Outside<'a> {
    pub(crate) hooks: &'a HookedPlan,
    pub(crate) stages: &'a [HookStage],
    /// The runtime's namespaces that the shim is not in.
    pub(crate) home: &'a [OwnedFd],
    /// The container's first process.
    pub(crate) pid: Pid,
    pub(crate) pidfd: BorrowedFd<'a>,
    /// That process has its root filesystem in the bundle, and waits.
    pub(crate) waits: bool,
}

/// Runs the hooks of some stages in the runtime's namespaces.
pub(crate) fn outside(outside: &Outside<'_>, reporter: Reporter) -> i32 {
    let furnished = outside.furnish();
    let (channel, _) = reporter.into_last_word();
    // The shim may close what is its own meanwhile, and whoever is on the other side is to notice.
    exec::with_stdio_and(&[channel], |kept| match furnished.and_then(|()| outside.run()) {
        Ok(()) => 0,
        Err(failure) => {
            tell_failure(kept[0], failure);
            EXIT_START_ERROR
        }
    })
}

// === impl Outside ===

impl Outside<'_> {
    /// All that needs descriptors.
    fn furnish(&self) -> Result<(), Failure> {
        let bundle = &self.hooks.bundle;
        process::set_oom_score(&self.hooks.plan.process)?;
        if self.waits {
            self.show_rootfs().internal(|| format!("show the root filesystem in {}", bundle.display()))?;
        }
        for namespace in self.home {
            move_into_link_name_space(namespace.as_fd(), None).internal(|| "enter the runtime's namespaces".into())?;
        }
        chdir(bundle).internal(|| format!("change to the bundle {}", bundle.display()))
    }

    fn run(&self) -> Result<(), Failure> {
        let pid = self.pid.as_raw_nonzero().get();
        self.stages.iter().try_for_each(|stage| run(self.hooks, *stage, pid, &|| Ok(())))
    }

    /// Attaches a copy of the container's root filesystem in the bundle, in a mount namespace of its own.
    fn show_rootfs(&self) -> io::Result<()> {
        let place = self.hooks.bundle.join(ROOTFS);
        let home = root::own()?;
        // On kernels before 6.15 only those who are in a mount's namespace can copy it.
        move_into_thread_name_spaces(self.pidfd, ThreadNameSpaceType::MOUNT)?;
        let copy = mount::clone_path(None, &place, false);
        root::enter(home)?;
        let copy = copy?;
        mount::set(&copy, mount::Attributes::default(), Some(Propagation::Private), false)?;
        root::begin_in_copy([&copy], &place)
    }
}

/// Runs the hooks that belong into the container while the host's root directory is in sight. `root` is the container's.
pub(super) fn in_container(hooks: &HookedPlan, root: BorrowedFd<'_>) -> Result<(), Failure> {
    let stage = HookStage::CreateContainer;
    if !hooks.has(&[stage]) {
        return Ok(());
    }
    fchdir(root).internal(|| "change to the container's root directory".into())?;
    run(hooks, stage, own_pid(), &|| Ok(()))
}

/// Of the calling process, in its PID namespace.
pub(super) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Runs the hooks of a stage one after the other, until one fails. `pid` is the container's first process as they see it;
/// `confine` is the last that each does before it executes its program.
///
/// For children of the shim only.
pub(super) fn run(
    hooks: &HookedPlan,
    stage: HookStage,
    pid: i32,
    confine: &dyn Fn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    for hook in hook::at(&hooks.plan.hooks, stage) {
        let step = || hook.step(stage);
        let told = serde_json::to_vec(&hooks.state(stage, pid)).internal(step)?;
        let inherited = if stage == HookStage::StartContainer { Some(&hooks.plan.process.env[..]) } else { None };
        let program = Program::new(hook, inherited).plan(step)?;
        let (code, said) = program.run(&told, hook.limit(), confine).internal(step)?;
        hook.judge(code, &said).internal(step)?;
    }
    Ok(())
}

/// A hook as the kernel takes it.
struct Program {
    path: CString,
    argv: Strings,
    env: Strings,
    /// It runs inside of the container, where next to nothing is open or the host's any more.
    inside: bool,
}

// === impl Program ===

impl Program {
    /// `inherited` is the environment of one that has none of its own.
    fn new(hook: &Hook, inherited: Option<&[String]>) -> io::Result<Program> {
        let env = inherited.filter(|_| hook.env.is_empty()).unwrap_or(&hook.env);
        Ok(Program {
            path: CString::new(hook.path.as_os_str().as_bytes())?,
            argv: Strings::new(hook.argv().iter().map(String::as_str))?,
            env: Strings::new(env.iter().map(String::as_str))?,
            inside: inherited.is_some(),
        })
    }

    /// Runs it: its exit code, `None` if it was killed for its slowness, and the end of what it has said.
    fn run(
        &self,
        told: &[u8],
        limit: Duration,
        confine: &dyn Fn() -> Result<(), Failure>,
    ) -> io::Result<(Option<i32>, Vec<u8>)> {
        let (stdin, feed) = pipe_with(PipeFlags::CLOEXEC)?;
        let (hear, output) = pipe_with(PipeFlags::CLOEXEC)?;
        let stdio = [stdin, output.try_clone()?, output];
        let child = fork::further(|| self.become_it(&stdio, confine))?;
        drop(stdio);
        let attended = attend(&child.pidfd, feed, hear, told, limit)?;
        if !attended.ended {
            let _ = kill_process_group(child.pid, Signal::KILL);
            let _ = signal::send(&child.pidfd, SIGKILL);
            let wait = Timespec { tv_sec: LAST.as_secs().cast_signed(), tv_nsec: 0 };
            if poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&wait))? == 0 {
                return Ok((None, attended.said));
            }
        }
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        let code = status
            .and_then(|status| status.exit_status().or_else(|| status.terminating_signal().map(|number| 128 + number)));
        Ok((if attended.ended { Some(code.unwrap_or(255)) } else { None }, attended.said))
    }

    fn become_it(&self, stdio: &[OwnedFd; 3], confine: &dyn Fn() -> Result<(), Failure>) -> i32 {
        // Its own process group, so that it can be killed with all that it has started.
        let _ = rustix::process::setsid();
        if !self.inside {
            rustix::process::umask(Mode::from_raw_mode(0o022));
        }
        if process::place(stdio).is_err() {
            return NOT_EXECUTED;
        }
        signal::reset_all();
        let last = || {
            let Err(failure) = confine().and_then(|()| self.execute());
            // Who runs it hears this as it hears the hook.
            let _ = rustix::io::write(rustix::stdio::stderr(), failure.to_string().as_bytes());
            NOT_EXECUTED
        };
        if self.inside { last() } else { exec::with_stdio_and(&[], |_| last()) }
    }

    fn execute(&self) -> Result<Infallible, Failure> {
        exec::execve(&self.path, &self.argv, &self.env).map_err(|error| failure(FailureKind::Internal, "exec", error))
    }
}

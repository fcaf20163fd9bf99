//! Hooks of containers that are being started: those outside of the container are run by a child of the shim, which is
//! one more thing that a start waits for.
//!
//! `prestart` and `createRuntime` come while the container's child pauses, `poststart` when its program has been
//! executed: the start is over only then, and fails if the hook does.

use std::{
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use rustix::process::Pid;
use tripod_shim_protocol::{EXIT_START_ERROR, Failure, FailureKind, HookStage, HookedPlan};
use tripod_sys::{fork, signal};

use crate::{
    child::hooks::{BEFORE, EARLY, Outside, outside},
    clock,
    containers::{Container, Phase},
    fault::{Blame, failure},
    shim::Shim,
    start::{self, ReplyTo, Stages, Start},
    tree::{self, SIGKILL},
};

/// How many namespaces of the runtime's travel with a plan.
const HOME: usize = 3;

/// A container's hooks, until it runs.
#[derive(Debug)]
pub(crate) struct Hooks {
    pub(crate) plan: Rc<HookedPlan>,
    /// The runtime's namespaces that the shim has left.
    home: Vec<OwnedFd>,
    /// Another process than the one that pauses executes the program.
    pub(crate) moves: bool,
    runner: Option<Runner>,
    executed: Option<Executed>,
}

/// A child that runs hooks.
#[derive(Debug)]
struct Runner {
    child: fork::Child,
    channel: Start,
}

/// What is known of a program that was executed while its start is not over.
#[derive(Debug)]
struct Executed {
    stages: Stages,
    at: i64,
    /// It has ended: exit code and time.
    ended: Option<(i32, i64)>,
}

// === impl Hooks ===

impl Hooks {
    /// Whether the container's child pauses for them.
    pub(crate) fn pause(&self) -> bool {
        self.plan.has(&EARLY)
    }

    /// Whether a process that goes on in another's place pauses for them, before it gets the last go.
    pub(crate) fn pause_later(&self) -> bool {
        self.pause() && !self.moves
    }

    /// When the program was executed, if that was some time ago.
    pub(crate) fn executed_at(&self) -> Option<i64> {
        self.executed.as_ref().map(|executed| executed.at)
    }

    /// Ends the hook that runs, with all that it has started.
    pub(crate) fn kill(&self) {
        if let Some(runner) = &self.runner {
            tree::kill(runner.child.pid, &runner.child.pidfd);
        }
    }
}

// === impl Shim ===

impl Shim {
    /// Starts a container with hooks. The answer comes later, unless this fails.
    pub(crate) fn launch_hooked(
        &mut self,
        plan: HookedPlan,
        mut fds: Vec<OwnedFd>,
        reply: ReplyTo,
        since: i64,
    ) -> Result<(), Failure> {
        let step = || format!("launch container {}", plan.plan.container);
        let Some(rest) = fds.len().checked_sub(HOME) else {
            return Err(failure(FailureKind::Plan, step(), "the namespaces for its hooks did not come with it"));
        };
        let home = fds.split_off(rest);
        let plan = Rc::new(plan);
        let hooks = Hooks { plan: Rc::clone(&plan), home, moves: false, runner: None, executed: None };
        self.launch(&plan.plan, Some(hooks), fds.into_iter(), reply, since)
    }

    /// A container's child, or who goes on in its place, has made its mounts and waits.
    pub(crate) fn paused(&mut self, id: &str) {
        if let Err(failure) = self.run_hooks(id, &BEFORE) {
            self.fail_start(id, failure);
        }
    }

    /// Has the hooks of some stages run; if there are none, that is over at once.
    fn run_hooks(&mut self, id: &str, stages: &'static [HookStage]) -> Result<(), Failure> {
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        let Some(hooks) = &mut container.hooks else { return Ok(()) };
        let Phase::Starting(start) = &container.phase else { return Ok(()) };
        let step = || format!("run hooks of container {id}");
        if !hooks.plan.has(stages) {
            go_on(hooks, start);
            return Ok(());
        }
        let (channel, reporter) = start::channel(clock::monotonic()).internal(step)?;
        let (plan, home) = (&hooks.plan, &hooks.home);
        let waits = hooks.executed.is_none();
        let outside = Outside { hooks: plan, stages, home, pid: container.pid, pidfd: container.pidfd.as_fd(), waits };
        let child = start::fork(0, None, None, move || self::outside(&outside, reporter)).internal(step)?;
        hooks.runner = Some(Runner { child, channel: Start::new(start.reply, channel) });
        Ok(())
    }

    /// The container for which this process runs hooks.
    pub(crate) fn hooks_run_by(&self, pid: Pid) -> Option<String> {
        let runs = |container: &Container| {
            let runner = container.hooks.as_ref().and_then(|hooks| hooks.runner.as_ref());
            runner.is_some_and(|runner| runner.child.pid == pid)
        };
        self.containers.iter().find(|(_, container)| runs(container)).map(|(id, _)| id.clone())
    }

    /// Whoever ran hooks has ended.
    pub(crate) fn hooks_ended(&mut self, id: &str, code: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(hooks) = &mut container.hooks else { return };
        let Some(mut runner) = hooks.runner.take() else { return };
        let Phase::Starting(start) = &container.phase else { return };
        let step = || format!("run hooks of container {id}");
        let result = match runner.channel.complaint() {
            Some(failure) => Err(failure),
            None if code == 0 => Ok(()),
            None => Err(failure(FailureKind::Internal, step(), "they were killed")),
        };
        match (result, &mut hooks.executed) {
            (Err(failure), _) => self.fail_start(id, failure),
            (Ok(()), None) => go_on(hooks, start),
            (Ok(()), Some(executed)) => {
                let (stages, ended) = (std::mem::take(&mut executed.stages), executed.ended);
                self.settle(id, Ok(stages));
                if let Some((code, at)) = ended {
                    self.container_ended(id, code, at);
                }
            }
        }
    }

    /// The outcome of a start is known, but for hooks that come after it: true if there are any.
    /// `ended` is how the program has ended, if it has.
    pub(crate) fn decided(&mut self, id: &str, result: Result<Stages, Failure>, ended: Option<(i32, i64)>) -> bool {
        const AFTER: [HookStage; 1] = [HookStage::Poststart];
        let container = self.containers.get_mut(id);
        match (result, container.and_then(|container| Some((container.hooks.as_mut()?, &container.phase)))) {
            (Ok(stages), Some((hooks, Phase::Starting(start)))) if hooks.plan.has(&AFTER) => {
                self.poll.remove(start.as_fd(), start.token);
                hooks.executed = Some(Executed { stages, at: clock::now(), ended });
                if let Err(failure) = self.run_hooks(id, &AFTER) {
                    self.fail_start(id, failure);
                }
                true
            }
            (result, _) => {
                self.settle(id, result);
                false
            }
        }
    }

    /// The program of a container has ended while hooks that come after its start run.
    pub(crate) fn ended_in_hooks(&mut self, id: &str, code: i32, at: i64) -> bool {
        let hooks = self.containers.get_mut(id).and_then(|container| container.hooks.as_mut());
        match hooks.and_then(|hooks| hooks.executed.as_mut()) {
            Some(executed) => {
                executed.ended = Some((code, at));
                true
            }
            None => false,
        }
    }

    /// A start has failed because of hooks: its process is killed, and the answer comes when it has ended.
    fn fail_start(&mut self, id: &str, failure: Failure) {
        let Some(container) = self.containers.get(id) else { return };
        let executed = container.hooks.as_ref().and_then(|hooks| hooks.executed.as_ref());
        let ended = executed.and_then(|executed| executed.ended);
        let _ = signal::send(&container.pidfd, SIGKILL);
        self.settle(id, Err(failure));
        if let Some((_, at)) = ended {
            self.container_ended(id, EXIT_START_ERROR, at);
        }
    }
}

/// Lets the container's child go on, and whoever executes the program, if that is the same process. If it has ended, that
/// will be heard.
fn go_on(hooks: &Hooks, start: &Start) {
    let _ = start.go();
    if !hooks.moves {
        let _ = start.go();
    }
}

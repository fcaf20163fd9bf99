//! Further processes in running containers.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Pid,
};
use tripod_shim_protocol::{EXIT_START_ERROR, Event, ExecPlan, Failure, FailureKind, Reply};
use tripod_sys::signal;

use crate::{
    birthplace,
    child::{self, Doors, Stdio},
    clock,
    fault::{Blame, failure},
    poll::{Source, Token},
    shim::Shim,
    start::{self, Progress, ReplyTo, Stages, Start},
    tree,
};

/// An exec that has not been reaped.
#[derive(Debug)]
pub(crate) struct Exec {
    /// The container that it runs in.
    pub(crate) container: String,
    /// The connection over which it was asked for. Its output and its time-out are that daemon's.
    pub(crate) link: Token,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) phase: Phase,
}

/// Where an exec is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The child is on its way.
    Starting(Start),
    /// The child has given up and is about to end.
    Failing(ReplyTo, Failure),
    /// The program runs.
    Running,
}

/// Whether a process that may not have been reaped has ended.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

// === impl Shim ===

impl Shim {
    /// Starts a process in a container. The answer comes later, unless this fails.
    pub(crate) fn exec(
        &mut self,
        plan: &ExecPlan,
        fds: Vec<OwnedFd>,
        reply: ReplyTo,
        since: i64,
    ) -> Result<(), Failure> {
        let step = || format!("exec {} in container {}", plan.exec, plan.container);
        if self.execs.contains_key(&plan.exec) {
            return Err(failure(FailureKind::Exists, step(), "the shim already has an exec of this name"));
        }
        self.running(&plan.container)?;
        let traced = self.is_traced() && self.pod.as_ref().is_some_and(|pod| pod.user.is_none());
        let Some(container) = self.containers.get_mut(&plan.container) else {
            return Err(failure(FailureKind::NotFound, step(), "no such container"));
        };
        let stdio = match (plan.process.terminal, <[OwnedFd; 3]>::try_from(fds)) {
            (true, _) => Stdio::Terminal,
            (false, Ok(fds)) => Stdio::Fds(fds),
            (false, Err(fds)) => {
                let text = format!("{} file descriptors came where three are needed", fds.len());
                return Err(failure(FailureKind::Plan, step(), text));
            }
        };
        let cgroup = birthplace::of(&container.cgroups)?;
        let doors = match container.doors.take() {
            Some(doors) => doors,
            None => Doors::open(&container.cgroups)?,
        };
        let doors = &*container.doors.insert(doors);
        let (channel, mut reporter) = start::channel(since).internal(step)?;
        reporter.mark("prepare");
        let into = container.own_pids.then(|| container.pidfd.as_fd());
        // As in a launch.
        let (into, pids) = if traced { (None, into) } else { (into, None) };
        let new = child::Exec {
            process: &plan.process,
            cgroups: &container.cgroups,
            doors,
            container: container.pidfd.as_fd(),
            user: self.pod.as_ref().and_then(|pod| pod.user.as_ref()),
            first: container.pid.as_raw_nonzero().get(),
            cgroup_namespace: container.cgroup_namespace,
            stdio,
            pids,
        };
        // The child takes them out of its own copy.
        let mut new = Some((new, reporter));
        let mut fork = |cgroup: Option<&OwnedFd>| {
            start::fork(0, cgroup.map(AsFd::as_fd), into, || {
                new.take().map_or(EXIT_START_ERROR, |(new, reporter)| child::exec(new, reporter))
            })
        };
        let mut child = fork(cgroup.as_ref());
        if child.as_ref().is_err_and(birthplace::is_taken)
            && let Some(cgroup) = birthplace::further_down(&container.cgroups, container.pid.as_raw_nonzero().get())
        {
            child = fork(Some(&cgroup));
        }
        // Its ends of the streams and of the channel are the child's alone.
        drop(new);
        let child = child.map_err(|error| {
            // No process can be born in a PID namespace whose first one has ended.
            let kind = if has_ended(&container.pidfd) { FailureKind::NotRunning } else { FailureKind::Internal };
            failure(kind, step(), error)
        })?;

        let mut start = Start::new(reply, channel);
        if pids.is_none() {
            // If it has ended already, it will be heard.
            let _ = start.go();
        }
        start.token = match self.poll.add_until_closed(start.as_fd(), Source::ExecStart(plan.exec.clone())) {
            Ok(token) => token,
            Err(error) => {
                // Unknown to the shim, it is reaped like any orphan.
                let _ = signal::send(&child.pidfd, tree::SIGKILL);
                return Err(failure(FailureKind::Internal, step(), error));
            }
        };
        let (container, phase) = (plan.container.clone(), Phase::Starting(start));
        let exec = Exec { container, link: reply.link, pid: child.pid, pidfd: child.pidfd, phase };
        self.execs.insert(plan.exec.clone(), exec);
        Ok(())
    }

    /// The channel of a start has something to say.
    pub(crate) fn on_exec_start(&mut self, name: &str) {
        let Some(exec) = self.execs.get_mut(name) else { return };
        let Phase::Starting(start) = &mut exec.phase else { return };
        if let Progress::Over(result) = start.advance() {
            self.settle_exec(name, result);
        }
    }

    fn settle_exec(&mut self, name: &str, result: Result<Stages, Failure>) {
        let Some(exec) = self.execs.get_mut(name) else { return };
        let Phase::Starting(start) = &mut exec.phase else { return };
        self.poll.remove(start.as_fd(), start.token);
        let (reply, master) = (start.reply, start.master.take());
        match result {
            Err(failure) => exec.phase = Phase::Failing(reply, failure),
            Ok(stages) => {
                exec.phase = Phase::Running;
                let pid = exec.pid.as_raw_nonzero().get();
                let started = Reply::Started { pid, started_at: clock::now(), stages };
                self.answer(reply, Ok(started), master.into_iter().collect());
            }
        }
    }

    /// An exec has been reaped.
    pub(crate) fn exec_ended(&mut self, name: &str, code: i32) {
        if let Some(Exec { phase: Phase::Starting(start), .. }) = self.execs.get_mut(name) {
            let result = start.conclude();
            self.settle_exec(name, result);
        }
        match self.execs.remove(name).map(|exec| exec.phase) {
            Some(Phase::Failing(reply, failure)) => self.answer(reply, Err(failure), Vec::new()),
            Some(_) => self.announce(&Event::ExecExited { exec: name.to_owned(), code }),
            None => {}
        }
    }

    /// Kills an exec and all its descendants.
    pub(crate) fn kill_exec(&mut self, name: &str) -> Result<(), Failure> {
        let exec = self.execs.get(name);
        let exec = exec.ok_or_else(|| failure(FailureKind::NotFound, format!("kill exec {name}"), "no such exec"))?;
        tree::kill(exec.pid, &exec.pidfd);
        Ok(())
    }

    /// Kills the execs that a daemon asked for which is gone: nobody reads what they say, and nobody would end them.
    pub(crate) fn kill_execs_from(&mut self, link: Token) {
        for exec in self.execs.values().filter(|exec| exec.link == link) {
            tree::kill(exec.pid, &exec.pidfd);
        }
    }

    /// Kills the execs of a container that has ended. In its own PID namespace the kernel has done so.
    pub(crate) fn kill_execs_of(&mut self, container: &str) {
        for exec in self.execs.values().filter(|exec| exec.container == container) {
            tree::kill(exec.pid, &exec.pidfd);
        }
    }
}

//! The pod's containers: starting them, carrying their output, signals.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Instant,
};

use rustix::process::Pid;
use tripod_shim_protocol::{
    Capability, CgroupPlan, ContainerReport, ExitRecord, Failure, FailureKind, LaunchPlan, LogTarget, PidNamespace,
    Reply,
};
use tripod_sys::{fork, mount, signal};

use crate::{
    attach::Stdin,
    birthplace,
    child::{self, Doors, terminal},
    clock,
    fault::{Blame, failure},
    hooks::Hooks,
    log::{Log, Stream},
    output::{Output, Taken},
    pod,
    poll::Source,
    runtime::{Awaited, Making},
    shim::Shim,
    start::{self, Progress, ReplyTo, Stages, Start},
    stdio::{nonblocking, stdio},
    tree::SIGKILL,
};

/// Whether processes of a container by this plan can have CAP_SYS_PTRACE.
pub(crate) fn may_trace(plan: &LaunchPlan) -> bool {
    const CAP_SYS_PTRACE: Capability = 19;
    plan.process.capabilities.bounding.contains(&CAP_SYS_PTRACE)
}

/// A container that was launched and not yet forgotten.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its first process; reaped once the phase is `Exited`.
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) phase: Phase,
    /// For its execs.
    pub(crate) cgroups: CgroupPlan,
    pub(crate) doors: Option<Doors>,
    pub(crate) cgroup_namespace: bool,
    pub(crate) own_pids: bool,
    /// Its processes can have CAP_SYS_PTRACE.
    pub(crate) traces: bool,
    pub(crate) log: Option<Log>,
    pub(crate) outputs: Vec<Output>,
    /// Keeps standard input open.
    pub(crate) stdin: Stdin,
    /// The first client that is attached to standard input is the only one.
    pub(crate) stdin_once: bool,
    /// The container's side of its terminal. As long as it is held, the master can be read, even if the container has
    /// closed the terminal and opens it again later.
    pub(crate) terminal: Option<OwnedFd>,
    /// It was started by a runtime, and has not been seen to execute its program.
    pub(crate) awaited: Option<Awaited>,
    /// Hooks that take part in its start.
    pub(crate) hooks: Option<Box<Hooks>>,
}

/// Where a container is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The child is on its way.
    Starting(Start),
    /// An OCI runtime makes it.
    Making(Box<Making>),
    /// The child has given up and is about to end.
    Failing(ReplyTo, Failure),
    /// The program runs.
    Running {
        /// Nanoseconds since the epoch.
        started_at: i64,
    },
    /// It has ended and its record is written.
    Exited(ExitRecord),
}

// === impl Container ===

impl Container {
    /// What is told of it, if it is more than a failed start.
    pub(crate) fn report(&self) -> Option<ContainerReport> {
        let pid = self.pid.as_raw_nonzero().get();
        match &self.phase {
            Phase::Starting(_) | Phase::Making(_) => Some(ContainerReport::Starting { pid }),
            Phase::Failing(..) => None,
            Phase::Running { started_at } => Some(ContainerReport::Running { pid, started_at: *started_at }),
            Phase::Exited(record) => Some(ContainerReport::Exited(record.clone())),
        }
    }

    /// The output of this stream, if it is open.
    pub(crate) fn output(&mut self, stream: Stream) -> Option<&mut Output> {
        self.outputs.iter_mut().find(|output| output.stream == stream)
    }

    /// Whether its first process has not been reaped.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Exited(_))
    }
}

// === impl Shim ===

impl Shim {
    /// Starts a container. The answer comes later, unless this fails.
    pub(crate) fn launch(
        &mut self,
        plan: &LaunchPlan,
        mut hooks: Option<Hooks>,
        mut fds: std::vec::IntoIter<OwnedFd>,
        reply: ReplyTo,
        since: i64,
    ) -> Result<(), Failure> {
        let step = || format!("launch container {}", plan.container);
        let pod = self.pod.as_ref().ok_or_else(pod::not_set_up)?;
        if self.containers.contains_key(&plan.container) {
            return Err(failure(FailureKind::Exists, step(), "the shim already has a container of this ID"));
        }
        if !is_file_name(&plan.container) {
            return Err(failure(FailureKind::Plan, step(), "the ID cannot be the name of a file"));
        }
        let rootfs =
            fds.next().ok_or_else(|| failure(FailureKind::Plan, step(), "the root filesystem did not come with it"))?;
        let (mut flags, into) = self.pid_namespace(&plan.pid)?;
        if pod.user.is_some() {
            // The child makes it when it is in the user namespace that is to own it.
            flags &= !fork::NEW_PID;
        }
        let (stdio, ends) = stdio(plan).internal(step)?;
        let cgroup = birthplace::of(&plan.cgroups)?;
        let (channel, mut reporter) = start::channel(since).internal(step)?;
        reporter.mark("prepare");
        // Who may trace must not see a process that still has what is the host's: it is born inside when it has not. One
        // that waits for hooks has it for so long that others may come that trace.
        let pauses = hooks.as_ref().is_some_and(Hooks::pause);
        let hidden = into.is_some() && (pauses || (self.is_traced() && pod.user.is_none()));
        // A procfs must be that of the namespace, whatever else.
        let outside = hidden && mount::proc_takes_namespace();
        if pauses && hidden && !outside {
            let text = "hooks before the start of a container that joins a PID namespace take Linux 6.17";
            return Err(failure(FailureKind::Plan, step(), text));
        }
        let (into, pids) = if outside { (None, into) } else { (into, None) };
        // Then, or if it has a user namespace to make its PID namespace in, another process goes on in its place.
        let moves = pids.is_some() || (pod.user.is_some() && plan.pid == PidNamespace::Container);
        if let Some(hooks) = &mut hooks {
            // With a PID namespace to make, it is made first, and it is the other one that pauses.
            hooks.moves = pids.is_some();
        }
        let hooked = hooks.as_ref().map(|hooks| &*hooks.plan);
        let new = child::Container { plan, pod, rootfs, detached: fds.collect(), stdio, pids, hooks: hooked };
        let child = start::fork(flags, cgroup.as_ref().map(AsFd::as_fd), into, move || child::container(new, reporter))
            .internal(step)?;

        let container = Container {
            pid: child.pid,
            pidfd: child.pidfd,
            phase: Phase::Starting(Start::new(reply, channel)),
            cgroups: plan.cgroups.clone(),
            doors: None,
            cgroup_namespace: plan.cgroup_namespace,
            own_pids: plan.pid != PidNamespace::Node,
            traces: may_trace(plan),
            log: None,
            outputs: Vec::new(),
            stdin: ends.stdin,
            stdin_once: plan.stdin_once,
            terminal: None,
            awaited: None,
            hooks: hooks.map(Box::new),
        };
        self.containers.insert(plan.container.clone(), container);
        // The child makes its mounts on another processor while a file is created here.
        if let Err(failure) = self.watch(&plan.container, ends.outputs, plan.log.as_ref(), !moves && !pauses) {
            if let Some(container) = self.containers.get(&plan.container) {
                let _ = signal::send(&container.pidfd, SIGKILL);
            }
            self.settle(&plan.container, Err(failure));
        }
        Ok(())
    }

    /// Does for a container whose child is on its way what the shim has to do, and lets the child go on.
    fn watch(
        &mut self,
        id: &str,
        outputs: Vec<(Stream, OwnedFd)>,
        log: Option<&LogTarget>,
        go: bool,
    ) -> Result<(), Failure> {
        let step = || format!("watch container {id}");
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        let Phase::Starting(start) = &mut container.phase else { return Ok(()) };
        let source = Source::ContainerStart(id.to_owned());
        start.token = if container.hooks.as_ref().is_some_and(|hooks| hooks.pause()) {
            self.poll.add(start.as_fd(), source)
        } else {
            self.poll.add_until_closed(start.as_fd(), source)
        }
        .internal(step)?;
        for (stream, fd) in outputs {
            let token = self.poll.add(&fd, Source::Output(id.to_owned(), stream)).internal(step)?;
            container.outputs.push(Output::pipe(stream, token, fd));
        }
        container.log = log.map(open_log).transpose()?;
        if !go {
            return Ok(());
        }
        match start.go() {
            // The child has ended already, and will be heard.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe || e.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            other => other.internal(step),
        }
    }

    /// How the first process of a container gets its PID namespace: by a flag of clone, or from another process.
    fn pid_namespace(&self, plan: &PidNamespace) -> Result<(u64, Option<BorrowedFd<'_>>), Failure> {
        let step = "find the PID namespace";
        match plan {
            PidNamespace::Container => Ok((fork::NEW_PID, None)),
            PidNamespace::Node => Ok((0, None)),
            PidNamespace::Pod => {
                let reaper = self.pod.as_ref().and_then(|pod| pod.reaper.as_ref());
                let reaper =
                    reaper.ok_or_else(|| failure(FailureKind::Plan, step, "the pod has no shared PID namespace"))?;
                Ok((0, Some(reaper.pidfd.as_fd())))
            }
            PidNamespace::Target(id) => Ok((0, Some(self.running(id)?.pidfd.as_fd()))),
        }
    }

    /// Whether a process in one of the pod's PID namespaces may look into others there.
    pub(crate) fn is_traced(&self) -> bool {
        self.containers.values().any(|container| container.traces && container.is_alive())
    }

    /// The running container `id`.
    pub(crate) fn running(&self, id: &str) -> Result<&Container, Failure> {
        let step = || format!("find container {id}");
        let container =
            self.containers.get(id).ok_or_else(|| failure(FailureKind::NotFound, step(), "no such container"))?;
        match container.phase {
            Phase::Running { .. } => Ok(container),
            _ => Err(failure(FailureKind::NotRunning, step(), "the container does not run")),
        }
    }

    /// The channel of a start has something to say.
    pub(crate) fn on_container_start(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Phase::Starting(start) = &mut container.phase else { return };
        match start.advance() {
            Progress::Over(result) => drop(self.decided(id, result, None)),
            // Who pauses in the child's place is known when that one has been reaped.
            Progress::Pending if !start.has_moved() && std::mem::take(&mut start.pausing) => self.paused(id),
            Progress::Pending => {}
        }
    }

    /// A start is decided. A failed one is answered when its child has been reaped, so that nothing of it is left.
    pub(crate) fn settle(&mut self, id: &str, result: Result<Stages, Failure>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Phase::Starting(start) = &mut container.phase else { return };
        self.poll.remove(start.as_fd(), start.token);
        let (reply, master) = (start.reply, start.master.take());
        let hooks = container.hooks.take();
        match result {
            Err(failure) => {
                container.phase = Phase::Failing(reply, failure);
                if let Some(hooks) = hooks {
                    hooks.kill();
                }
            }
            Ok(stages) => {
                let started_at = hooks.and_then(|hooks| hooks.executed_at()).unwrap_or_else(clock::now);
                let pid = container.pid.as_raw_nonzero().get();
                container.phase = Phase::Running { started_at };
                if let Some(master) = master {
                    let output = nonblocking(&master).and_then(|()| {
                        let terminal = terminal::other_end(&master)?;
                        let token = self.poll.add(&master, Source::Output(id.to_owned(), Stream::Stdout))?;
                        Ok((Output::terminal(Stream::Stdout, token, master), terminal))
                    });
                    match output {
                        Ok((output, terminal)) => {
                            container.outputs.push(output);
                            container.terminal = Some(terminal);
                        }
                        Err(e) => crate::note(&format!("container {id}: its terminal cannot be read: {e}")),
                    }
                }
                self.answer(reply, Ok(Reply::Started { pid, started_at, stages }), Vec::new());
            }
        }
    }

    /// A container has written something.
    pub(crate) fn on_output(&mut self, id: &str, stream: Stream) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(at) = container.outputs.iter().position(|output| output.stream == stream) else { return };
        if container.outputs[at].turn(container.log.as_mut(), &mut self.scratch, &self.poll) == Taken::End {
            let output = container.outputs.swap_remove(at);
            output.unwatch(&mut self.poll);
            output.finish(container.log.as_mut(), &mut self.scratch);
        }
    }

    /// Reads the outputs whose pause is over.
    pub(crate) fn read_chatter(&mut self) {
        let now = Instant::now();
        let due = |(id, container): (&String, &Container)| -> Vec<(String, Stream)> {
            let due = container.outputs.iter().filter(|output| output.pace.until.is_some_and(|until| until <= now));
            due.map(|output| (id.clone(), output.stream)).collect()
        };
        for (id, stream) in self.containers.iter().flat_map(due).collect::<Vec<_>>() {
            self.on_output(&id, stream);
        }
    }

    /// When the next of those pauses is over.
    pub(crate) fn next_chatter(&self) -> Option<Instant> {
        self.containers.values().flat_map(|container| &container.outputs).filter_map(|output| output.pace.until).min()
    }

    /// Sends a signal to a container's first process.
    pub(crate) fn signal(&mut self, id: &str, number: i32) -> Result<(), Failure> {
        let step = || format!("send signal {number} to container {id}");
        let starting = match self.containers.get(id) {
            Some(container) if matches!(container.phase, Phase::Starting(_)) => Some(container),
            _ => None,
        };
        if let Some(Phase::Making(making)) = self.containers.get(id).map(|container| &container.phase)
            && number == SIGKILL
        {
            making.kill();
            if making.is_let_go() {
                let _ = self.containers.get(id).map(|container| signal::send(&container.pidfd, SIGKILL));
            }
            return Ok(());
        }
        if let Some(hooks) = starting.and_then(|container| container.hooks.as_ref()).filter(|_| number == SIGKILL) {
            hooks.kill();
        }
        let is_starting = starting.is_some();
        if !(is_starting && number == SIGKILL) {
            self.running(id)?;
            if self.keep_signal(id, number) {
                return Ok(());
            }
        }
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        match signal::send(&container.pidfd, number) {
            // It has ended, and the shim is about to learn of it.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Err(failure(FailureKind::NotRunning, step(), "the container has just ended"))
            }
            other => other.plan(step),
        }
    }

    /// Opens a running container's log anew.
    pub(crate) fn reopen_log(&mut self, id: &str) -> Result<(), Failure> {
        self.running(id)?;
        match self.containers.get_mut(id).and_then(|container| container.log.as_mut()) {
            Some(log) => {
                let step = format!("open log {}", log.path().display());
                log.reopen().plan(|| step)
            }
            None => Err(failure(FailureKind::Plan, format!("reopen the log of container {id}"), "it has no log")),
        }
    }
}

pub(crate) fn open_log(target: &LogTarget) -> Result<Log, Failure> {
    Log::open(&target.path).plan(|| format!("open log {}", target.path.display()))
}

pub(crate) fn is_file_name(id: &str) -> bool {
    Path::new(id).file_name().is_some_and(|name| name == id)
}

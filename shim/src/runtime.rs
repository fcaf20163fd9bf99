//! Containers that an OCI runtime makes.
//!
//! The runtime is called twice: `create`, which leaves behind a process that waits, and `start`, which lets it go. The
//! shim is a subreaper, so that this process becomes its child when `create` ends; from then on the container is like
//! any other. Each call is a state of the event loop and has a limit.

mod awaited;
mod program;
mod said;

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    net::{SocketFlags, accept_with},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use tripod_shim_protocol::{Failure, FailureKind, OciPlan, PidNamespace, Reply};
use tripod_sys::{fork, scm, signal};

pub(crate) use self::program::Awaited;
use self::program::Program;
use crate::{
    child::{
        self,
        runtime::{CONSOLE, Call, New},
        terminal,
    },
    clock,
    containers::{Container, Phase, is_file_name, may_trace, open_log},
    fault::{Blame, failure},
    log::Stream,
    output::Output,
    pod,
    poll::Source,
    shim::Shim,
    start::{self, ReplyTo, Stages, Start},
    stdio::{nonblocking, pipes},
    tree::SIGKILL,
};

/// A start by a runtime, under way.
#[derive(Debug)]
pub(crate) struct Making {
    oci: Box<OciPlan>,
    reply: ReplyTo,
    step: Step,
    helper: fork::Child,
    /// Says whether the runtime could be run at all.
    channel: Start,
    limit: Duration,
    /// When the call under way is given up.
    pub(crate) deadline: Instant,
    timed_out: bool,
    stages: Stages,
    since: i64,
    /// The shim's ends, unread until the program runs: before that, they hold what the runtime says.
    outputs: Vec<(Stream, OwnedFd)>,
    console: Option<OwnedFd>,
    master: Option<OwnedFd>,
    /// What the container's first process executes while it waits for `start`.
    waiting: Option<Program>,
    /// It has been let go and has not executed its program yet.
    awaited: Option<Awaited>,
    /// The container's first process has ended already: code and time.
    ended: Option<(i32, i64)>,
}

/// The call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Start,
    /// None any more: the program is awaited.
    Execute,
}

// === impl Step ===

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Create => "create",
            Step::Start => "start",
            Step::Execute => "execute",
        }
    }
}

// === impl Making ===

impl Making {
    /// Ends the call under way, with all that the runtime has started.
    pub(crate) fn kill(&self) {
        if self.step == Step::Execute {
            return;
        }
        let _ = kill_process_group(self.helper.pid, Signal::KILL);
        let _ = signal::send(&self.helper.pidfd, SIGKILL);
    }

    /// Whether no call is under way any more, and the container's process is on its own.
    pub(crate) fn is_let_go(&self) -> bool {
        self.step == Step::Execute
    }

    fn log(&self) -> PathBuf {
        log_of(&self.oci, self.step)
    }

    fn what(&self) -> String {
        format!("{} {}", self.oci.runtime.program.display(), self.step.name())
    }

    /// Why the call failed, in the runtime's own words.
    fn why(&self, code: i32) -> Failure {
        if self.timed_out {
            let text = format!("did not end within {} s and was killed", self.limit.as_secs_f32());
            return failure(FailureKind::Internal, self.what(), text);
        }
        let said = said::last_error(&self.log()).or_else(|| {
            let (_, pipe) = self.outputs.iter().find(|(stream, _)| *stream == Stream::Stderr)?;
            let mut bytes = vec![0; said::MAX];
            let n = rustix::io::read(pipe, &mut bytes[..]).ok()?;
            let text = String::from_utf8_lossy(&bytes[..n]);
            let last = text.lines().rfind(|line| !line.trim().is_empty())?.trim().to_owned();
            Some(last)
        });
        let text = said.unwrap_or_else(|| format!("ended with code {code} and said nothing"));
        let (kind, text) = said::judged(text, self.oci.plan.process.argv.first().map_or("", String::as_str));
        failure(kind, self.what(), text)
    }
}

// === impl Shim ===

impl Shim {
    /// Has a container made and started. The answer comes later, unless this fails.
    pub(crate) fn launch_oci(
        &mut self,
        oci: Box<OciPlan>,
        mut fds: std::vec::IntoIter<OwnedFd>,
        reply: ReplyTo,
        since: i64,
    ) -> Result<(), Failure> {
        let id = oci.plan.container.clone();
        let step = || format!("launch container {id}");
        let pod = self.pod.as_ref().ok_or_else(pod::not_set_up)?;
        if self.containers.contains_key(&id) {
            return Err(failure(FailureKind::Exists, step(), "the shim already has a container of this ID"));
        }
        if !is_file_name(&id) {
            return Err(failure(FailureKind::Plan, step(), "the ID cannot be the name of a file"));
        }
        let rootfs =
            fds.next().ok_or_else(|| failure(FailureKind::Plan, step(), "the root filesystem did not come with it"))?;
        let pid = self.joined_pid(&oci.plan.pid)?;
        let log = oci.plan.log.as_ref().map(open_log).transpose()?;
        let (stdio, ends) = pipes(&oci.plan).internal(step)?;
        let console = if oci.plan.process.terminal {
            Some(child::runtime::console(&oci.bundle).internal(|| "make the socket for the terminal".into())?)
        } else {
            None
        };
        // From the first such container on: orphans of containers in the host's PID namespace come to the shim too.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .internal(|| "become the parent of orphans".into())?;

        let mut command = vec!["create".to_owned(), "--bundle".to_owned(), text(&oci.bundle)];
        command.extend(["--pid-file".to_owned(), text(&pid_file(&oci))]);
        if console.is_some() {
            command.extend(["--console-socket".to_owned(), CONSOLE.to_owned()]);
        }
        let new = New { pod, rootfs, detached: fds.collect(), pid };
        let log_file = log_of(&oci, Step::Create);
        let call = Call { oci: &oci, command, log: log_file, stdio, new: Some(new) };
        let (helper, channel) = run(call, reply, since)?;

        let limit = Duration::from_millis(oci.runtime.limit_ms);
        let container = Container {
            pid: helper.pid,
            pidfd: helper.pidfd.try_clone().internal(step)?,
            cgroups: oci.plan.cgroups.clone(),
            doors: None,
            cgroup_namespace: oci.plan.cgroup_namespace,
            own_pids: oci.plan.pid != PidNamespace::Node,
            traces: may_trace(&oci.plan),
            log,
            outputs: Vec::new(),
            stdin: ends.stdin,
            stdin_once: oci.plan.stdin_once,
            terminal: None,
            awaited: None,
            hooks: None,
            phase: Phase::Making(Box::new(Making {
                oci,
                reply,
                step: Step::Create,
                helper,
                channel,
                limit,
                deadline: Instant::now() + limit,
                timed_out: false,
                stages: Stages::new(),
                since,
                outputs: ends.outputs,
                console,
                master: None,
                waiting: None,
                awaited: None,
                ended: None,
            })),
        };
        self.containers.insert(id, container);
        Ok(())
    }

    /// The process whose PID namespace a container joins.
    fn joined_pid(&self, plan: &PidNamespace) -> Result<Option<Pid>, Failure> {
        match plan {
            PidNamespace::Container | PidNamespace::Node => Ok(None),
            PidNamespace::Pod => {
                let reaper = self.pod.as_ref().and_then(|pod| pod.reaper.as_ref());
                let missing = || failure(FailureKind::Plan, "find the PID namespace", "the pod has no shared one");
                reaper.map(|reaper| Some(reaper.pid)).ok_or_else(missing)
            }
            PidNamespace::Target(id) => Ok(Some(self.running(id)?.pid)),
        }
    }

    /// The container for which this process is a call of a runtime.
    pub(crate) fn made_by(&self, helper: Pid) -> Option<String> {
        let is_it = |container: &Container| matches!(&container.phase, Phase::Making(m) if m.step != Step::Execute && m.helper.pid == helper);
        self.containers.iter().find(|(_, container)| is_it(container)).map(|(id, _)| id.clone())
    }

    /// Whether the PID of a container that is being made is not yet known: a child that nobody knows may be it.
    pub(crate) fn awaits_child(&self) -> bool {
        let awaits = |container: &Container| matches!(&container.phase, Phase::Making(m) if m.step == Step::Create);
        self.containers.values().any(awaits)
    }

    /// A call has ended.
    pub(crate) fn call_ended(&mut self, id: &str, code: i32) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Phase::Making(making) = &mut container.phase else { return };
        let now = clock::monotonic();
        making.stages.insert(making.step.name().to_owned(), ((now - making.since) / 1000).cast_unsigned());
        making.since = now;
        let result = match making.channel.conclude() {
            Err(failure) => Err(failure),
            Ok(_) if code == 0 => Ok(()),
            Ok(_) => Err(making.why(code)),
        };
        let step = making.step;
        let result = result.and_then(|()| match step {
            Step::Create => self.adopt(id),
            Step::Start | Step::Execute => self.await_program(id),
        });
        if let Err(failure) = result {
            self.give_up(id, failure);
        }
        if !self.awaits_child() {
            self.strays.clear();
        }
    }

    /// `create` has left a process behind: it is the container's first one. Calls `start`.
    fn adopt(&mut self, id: &str) -> Result<(), Failure> {
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        let Phase::Making(making) = &mut container.phase else { return Ok(()) };
        let what = making.what();
        let file = pid_file(&making.oci);
        let pid = fs::read_to_string(&file).internal(|| format!("{what}: read {}", file.display()))?;
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failure(FailureKind::Internal, what.as_str(), "its file for the PID has none"))?;
        if let Some(at) = self.strays.iter().position(|stray| *stray == pid) {
            self.strays.swap_remove(at);
            return Err(failure(FailureKind::Internal, what, "the container has ended before it was started"));
        }
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).internal(|| format!("{what}: open process {pid:?}"))?;
        // From here on its end is noticed as the container's.
        (container.pid, container.pidfd) = (pid, pidfd);
        making.waiting = Program::of(pid);
        making.step = Step::Start;
        making.deadline = Instant::now() + making.limit;
        if let Some(socket) = making.console.take() {
            making.master = Some(take_terminal(&socket).internal(|| format!("{what}: take the terminal over"))?);
        }
        let null = || fs::File::open("/dev/null").map(OwnedFd::from).internal(|| "open /dev/null".into());
        let (stdio, log) = ([null()?, null()?, null()?], making.log());
        let call = Call { oci: &making.oci, command: vec!["start".to_owned()], log, stdio, new: None };
        (making.helper, making.channel) = run(call, making.reply, clock::monotonic())?;
        Ok(())
    }

    /// The container runs, or did.
    fn show(&mut self, id: &str) -> Result<(), Failure> {
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        let Phase::Making(making) = &mut container.phase else { return Ok(()) };
        let step = || format!("watch container {id}");
        let ended = making.ended;
        for (stream, fd) in std::mem::take(&mut making.outputs) {
            let token = self.poll.add(&fd, Source::Output(id.to_owned(), stream)).internal(step)?;
            container.outputs.push(Output::pipe(stream, token, fd));
        }
        if let Some(master) = making.master.take() {
            nonblocking(&master).internal(step)?;
            // A container that has ended has closed its side for good.
            container.terminal = terminal::other_end(&master).ok();
            let token = self.poll.add(&master, Source::Output(id.to_owned(), Stream::Stdout)).internal(step)?;
            container.outputs.push(Output::terminal(Stream::Stdout, token, master));
        }
        let (reply, stages) = (making.reply, std::mem::take(&mut making.stages));
        container.awaited = making.awaited.take();
        let started_at = clock::now();
        let pid = container.pid.as_raw_nonzero().get();
        container.phase = Phase::Running { started_at };
        self.answer(reply, Ok(Reply::Started { pid, started_at, stages }), Vec::new());
        if let Some((code, at)) = ended {
            self.container_ended(id, code, at);
        }
        Ok(())
    }

    /// The start has failed. It is answered when nothing of it runs.
    fn give_up(&mut self, id: &str, failure: Failure) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Phase::Making(making) = &mut container.phase else { return };
        let reply = making.reply;
        // Whoever was adopted is the shim's to reap; before that there is nobody.
        if making.step != Step::Create && making.ended.is_none() {
            let _ = signal::send(&container.pidfd, SIGKILL);
            container.phase = Phase::Failing(reply, failure);
        } else {
            for output in self.containers.remove(id).into_iter().flat_map(|container| container.outputs) {
                output.unwatch(&mut self.poll);
            }
            self.answer(reply, Err(failure), Vec::new());
        }
    }

    /// The first process of a container that is being started has ended.
    pub(crate) fn ended_early(&mut self, id: &str, code: i32, at: i64) -> bool {
        match self.containers.get_mut(id).map(|container| &mut container.phase) {
            Some(Phase::Making(making)) => {
                making.ended = Some((code, at));
                if making.step == Step::Execute {
                    making.awaited = None;
                    if let Err(failure) = self.show(id) {
                        self.give_up(id, failure);
                    }
                }
                true
            }
            _ => false,
        }
    }
}

fn run(call: Call<'_>, reply: ReplyTo, since: i64) -> Result<(fork::Child, Start), Failure> {
    let step = || format!("call the OCI runtime for container {}", call.oci.plan.container);
    let (channel, mut reporter) = start::channel(since).internal(step)?;
    reporter.mark("prepare");
    let name = step();
    let helper = start::fork(0, None, None, move || child::runtime::runtime(&call, reporter)).internal(|| name)?;
    let start = Start::new(reply, channel);
    // If it has ended already, that will be heard.
    let _ = start.go();
    Ok((helper, start))
}

/// The master of a terminal that the runtime has sent before it ended.
fn take_terminal(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let connection = accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let (mut fds, mut name) = (Vec::new(), [0; 4096]);
    scm::receive(connection.as_fd(), &mut name, &mut fds)?;
    fds.pop().ok_or_else(|| io::Error::other("the runtime has sent none"))
}

fn pid_file(oci: &OciPlan) -> PathBuf {
    oci.bundle.join("init.pid")
}

fn log_of(oci: &OciPlan, step: Step) -> PathBuf {
    oci.bundle.join(format!("{}.log", step.name()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

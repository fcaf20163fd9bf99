//! The event loop: waits, and hands what happens to the module that knows what to do.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with},
    process::Pid,
};
use serde::Deserialize;
use tripod_shim_protocol::{
    Event, Failure, FailureKind, FromShim, Reply, Request, RequestId, ToShim, VERSION, frame, wire::Frame,
};
use tripod_sys::{memory, signal::ChildSignals};

use crate::{
    attach::Wanted,
    clock,
    containers::Container,
    execs::Exec,
    exits::Stopping,
    fault::failure,
    link::{Link, Sent},
    output::Scratch,
    pod::Pod,
    poll::{Poll, Source, Token},
    start::ReplyTo,
    user::UserNamespace,
};

/// After so long without work, memory that was needed for some is given back.
const IDLE: Duration = Duration::from_millis(50);

/// How long a shim that no daemon has given a pod waits for one. The daemon that started it may have been killed.
const UNCLAIMED: Duration = Duration::from_secs(60);

/// All that the shim knows.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) poll: Poll,
    pub(crate) pod: Option<Pod>,
    /// The user namespace of a pod that is not set up yet.
    pub(crate) user: Option<UserNamespace>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) execs: BTreeMap<String, Exec>,
    pub(crate) scratch: Scratch,
    pub(crate) stopping: Option<Stopping>,
    /// Children that have ended and that nobody knew, while one is expected.
    pub(crate) strays: Vec<Pid>,
    /// The loop ends.
    pub(crate) over: bool,
    listener: OwnedFd,
    signals: ChildSignals,
    links: BTreeMap<Token, Link>,
    /// When the next output is read that nobody waits for.
    chatter: Option<Instant>,
    /// Something was allocated since the last idle moment.
    used: bool,
    /// When a shim without a pod and without a connection gives up.
    unclaimed: Instant,
}

/// What can be read of a request that is not understood.
#[derive(Deserialize)]
struct OnlyId {
    id: RequestId,
}

// === impl Shim ===

impl Shim {
    pub(crate) fn new(listener: OwnedFd) -> io::Result<Shim> {
        let mut poll = Poll::new()?;
        let signals = ChildSignals::new()?;
        rustix::io::ioctl_fionbio(&listener, true)?;
        poll.add(&listener, Source::Listener)?;
        poll.add(signals.as_fd(), Source::Children)?;
        Ok(Shim {
            poll,
            pod: None,
            user: None,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            scratch: Scratch::default(),
            stopping: None,
            strays: Vec::new(),
            over: false,
            listener,
            signals,
            links: BTreeMap::new(),
            chatter: None,
            used: true,
            unclaimed: Instant::now() + UNCLAIMED,
        })
    }

    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.over {
            let timeout = self.timeout();
            let ready = self.poll.wait(timeout)?;
            self.give_up_late();
            self.look_for_programs();
            if self.chatter.is_some_and(|next| next <= Instant::now()) {
                self.read_chatter();
                // While somebody talks there is no idle moment.
                self.continue_shutdown();
            } else if ready.is_empty() {
                self.idle();
            }
            for token in ready {
                // What an earlier event of the same batch has removed is gone.
                if let Some(source) = self.poll.source(token) {
                    self.dispatch(token, &source);
                }
            }
        }
        self.say_goodbye();
        Ok(())
    }

    fn timeout(&mut self) -> Option<Duration> {
        self.chatter = self.next_chatter();
        let chatter = self.chatter.map(|until| until.saturating_duration_since(Instant::now()));
        let stopping = self.stopping.as_ref().map(|s| s.deadline.saturating_duration_since(Instant::now()));
        let idle = (self.used || self.scratch.is_used()).then_some(IDLE);
        let unclaimed = self.is_unclaimed().then(|| self.unclaimed.saturating_duration_since(Instant::now()));
        let call = self.next_deadline().map(|until| until.saturating_duration_since(Instant::now()));
        stopping.into_iter().chain(call).chain(idle).chain(unclaimed).chain(chatter).min()
    }

    fn is_unclaimed(&self) -> bool {
        self.pod.is_none() && self.links.is_empty()
    }

    fn idle(&mut self) {
        self.scratch = Scratch::default();
        if std::mem::take(&mut self.used) {
            memory::trim();
        }
        self.continue_shutdown();
        self.over |= self.is_unclaimed() && Instant::now() >= self.unclaimed;
    }

    fn dispatch(&mut self, token: Token, source: &Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Children => {
                self.signals.clear();
                self.reap();
                self.used = true;
            }
            Source::Link => self.on_link(token),
            Source::ContainerStart(id) => self.on_container_start(id),
            Source::ExecStart(name) => self.on_exec_start(name),
            Source::Output(id, stream) => self.on_output(id, *stream),
            Source::Viewer(id, stream) => self.on_viewer(id, *stream, token),
        }
    }

    fn accept(&mut self) {
        match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => match self.poll.add(&socket, Source::Link) {
                Ok(token) => drop(self.links.insert(token, Link::new(socket))),
                Err(e) => crate::note(&format!("a connection could not be watched: {e}")),
            },
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            Err(e) => crate::note(&format!("a connection could not be accepted: {e}")),
        }
    }

    fn on_link(&mut self, token: Token) {
        self.used = true;
        loop {
            let Some(link) = self.links.get_mut(&token) else { return };
            match link.receive() {
                Ok(None) => break,
                Ok(Some(frame)) => self.on_request(token, frame),
                Err(_) => return self.hang_up(token),
            }
        }
        self.flush(token);
    }

    fn flush(&mut self, token: Token) {
        if let Some(link) = self.links.get_mut(&token).filter(|link| link.waits) {
            let sent = link.flush();
            self.sent(token, sent);
        }
    }

    /// Watches for room if something could not be sent.
    fn sent(&mut self, token: Token, sent: io::Result<Sent>) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let watched = sent.and_then(|sent| {
            let waits = sent == Sent::Part;
            if waits != link.waits {
                self.poll.want_writable(link.as_fd(), token, waits)?;
                link.waits = waits;
            }
            Ok(())
        });
        if watched.is_err() {
            self.hang_up(token);
        }
    }

    /// The end of a connection is no reason for anything else to end, but for the execs of whoever was there.
    fn hang_up(&mut self, token: Token) {
        if let Some(link) = self.links.remove(&token) {
            self.poll.remove(link.as_fd(), token);
            self.kill_execs_from(token);
            self.unclaimed = Instant::now() + UNCLAIMED;
        }
    }

    fn on_request(&mut self, link: Token, Frame { body, fds }: Frame) {
        let since = clock::monotonic();
        let message: ToShim = match frame::decode(&body) {
            Ok(message) => message,
            Err(error) => {
                // A newer daemon asks for something that this shim does not know.
                match frame::decode::<OnlyId>(&body) {
                    Ok(OnlyId { id }) => {
                        let failure = failure(FailureKind::Internal, "read a request", error);
                        self.answer(ReplyTo { link, id }, Err(failure), Vec::new());
                    }
                    Err(_) => self.hang_up(link),
                }
                return;
            }
        };
        drop(body);
        let reply = ReplyTo { link, id: message.id };
        if let Some(result) = self.handle(message.request, fds, reply, since).transpose() {
            let (result, fds) = match result {
                Ok((reply, fds)) => (Ok(reply), fds),
                Err(failure) => (Err(failure), Vec::new()),
            };
            self.answer(reply, result, fds);
        }
    }

    /// Does what is asked; the answer and what travels with it, or `None` if it comes later.
    fn handle(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
        reply: ReplyTo,
        since: i64,
    ) -> Result<Option<(Reply, Vec<OwnedFd>)>, Failure> {
        if self.stopping.is_some()
            && matches!(
                request,
                Request::Launch(_)
                    | Request::LaunchHooked(_)
                    | Request::LaunchOci(_)
                    | Request::Exec(_)
                    | Request::Shutdown
            )
        {
            return Err(failure(FailureKind::NotRunning, "take a request", "the pod is being shut down"));
        }
        match request {
            Request::UserNamespace(plan) => return self.user_namespace(plan).map(Some),
            Request::Setup(plan) => {
                if self.pod.is_some() {
                    return Err(failure(FailureKind::Exists, "set up the pod", "it has been set up"));
                }
                self.pod = Some(Pod::set_up(&plan, fds.into_iter().next(), self.user.take())?);
                let pid = rustix::process::getpid().as_raw_nonzero().get();
                return Ok(Some((Reply::Ready { pid, version: VERSION }, Vec::new())));
            }
            Request::Launch(plan) => return self.launch(&plan, None, fds.into_iter(), reply, since).map(|()| None),
            Request::LaunchHooked(plan) => return self.launch_hooked(*plan, fds, reply, since).map(|()| None),
            Request::LaunchOci(plan) => return self.launch_oci(plan, fds.into_iter(), reply, since).map(|()| None),
            Request::Exec(plan) => return self.exec(&plan, fds, reply, since).map(|()| None),
            Request::Signal { container, signal } => self.signal(&container, signal)?,
            Request::KillExec { exec } => self.kill_exec(&exec)?,
            Request::ReopenLog { container } => self.reopen_log(&container)?,
            Request::Attach { container, stdin, stdout, stderr } => {
                return self.attach(&container, Wanted { stdin, stdout, stderr }).map(Some);
            }
            Request::Socket { ipv6 } => return self.socket(ipv6).map(Some),
            Request::List => {
                let report = |(id, container): (&String, &Container)| Some((id.clone(), container.report()?));
                let containers = self.containers.iter().filter_map(report).collect();
                return Ok(Some((Reply::Report { version: VERSION, containers }, Vec::new())));
            }
            Request::Forget { container } => self.forget(&container)?,
            Request::Shutdown => {
                self.shut_down(reply);
                return Ok(None);
            }
        }
        Ok(Some((Reply::Done, Vec::new())))
    }

    /// Answers a request, if whoever asked is still there.
    pub(crate) fn answer(&mut self, to: ReplyTo, result: Result<Reply, Failure>, fds: Vec<OwnedFd>) {
        self.send(to.link, &FromShim::Reply { id: to.id, result }, fds);
    }

    /// Tells every connection.
    pub(crate) fn announce(&mut self, event: &Event) {
        let message = FromShim::Event(event.clone());
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.send(link, &message, Vec::new());
        }
    }

    fn send(&mut self, token: Token, message: &FromShim, fds: Vec<OwnedFd>) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let sent = link.send(message, fds);
        self.sent(token, sent);
    }

    /// Gives the last answers a moment to be read.
    fn say_goodbye(&mut self) {
        let end = Instant::now() + Duration::from_secs(1);
        for link in self.links.values_mut() {
            while matches!(link.flush(), Ok(Sent::Part)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

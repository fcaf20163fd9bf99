//! What clients are connected to while they look on: commands with their streams, containers, ports of pods.

use std::{
    fmt,
    future::Future,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpSocket;
use tripod_shim_protocol::{Reply, Request};

use super::{Engine, command::Stdio, exec::pipe};
use crate::{Error, Kind, Result, shim::Shim};

/// How long a command may go on after its client has gone. Its input has ended and its output leads nowhere, so that
/// most end by themselves; one with a terminal gets SIGHUP.
const GRACE: Duration = Duration::from_secs(10);

/// How long a program in a pod may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionStreams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal, for commands; a container has one or has none.
    pub terminal: bool,
}

/// The daemon's ends of the streams of a command or of a container.
pub struct Session {
    /// Closing it ends a command's input, and that of a container whose input is for its first client only.
    pub stdin: Option<OwnedFd>,
    /// Standard output, or what a terminal shows.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    /// A client that ends its input takes its leave, for the container's input stays open for the next. The other
    /// clients stay: they wait for what a command, or a container for one client, makes of its input.
    pub leaves_with_input: bool,
    /// A command's exit code; `None` when the container has ended that a client was attached to.
    pub end: SessionEnd,
}

/// Waits for the end of a session. Dropped early, a command is killed after a grace; a container goes on.
pub type SessionEnd = Pin<Box<dyn Future<Output = Result<Option<i32>>> + Send>>;

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = [&self.stdin, &self.stdout, &self.stderr, &self.terminal];
        f.debug_tuple("Session").field(&ends).finish()
    }
}

impl Engine {
    /// Checks that clients can be connected to a container; gives its full ID.
    pub fn check_session(&self, id: &str) -> Result<String> {
        let container = self.index.container(id)?;
        container.record().running("connect to")?;
        Ok(container.id.to_string())
    }

    /// Checks that clients can be connected to a pod's ports; gives its full ID.
    pub fn check_ports(&self, id: &str) -> Result<String> {
        let pod = self.index.pod(id)?;
        pod.shim()?;
        Ok(pod.id.to_string())
    }

    /// Runs a command in a running container.
    pub async fn exec(&self, id: &str, argv: Vec<String>, streams: SessionStreams) -> Result<Session> {
        let mut session =
            Session { stdin: None, stdout: None, stderr: None, terminal: None, leaves_with_input: false, end: ended() };
        let stdio = if streams.terminal { Stdio::Terminal } else { session.pipes(streams)? };
        let mut command = self.start_command(id, argv, stdio, GRACE).await?;
        if let Some(master) = command.master.take() {
            let copy = || master.try_clone().map_err(|error| Error::io("duplicate a terminal", error));
            session.stdin = streams.stdin.then(copy).transpose()?;
            session.stdout = streams.stdout.then(copy).transpose()?;
            session.terminal = Some(master);
        }
        session.end = Box::pin(async move { command.end().await.map(Some) });
        Ok(session)
    }

    /// Connects to the first process of a running container.
    pub async fn attach(&self, id: &str, streams: SessionStreams) -> Result<Session> {
        let container = self.index.container(id)?;
        let record = container.record();
        record.running("attach to")?;
        let shim = self.index.pod(record.pod.as_str())?.shim()?;
        let SessionStreams { stdin, stdout, stderr, .. } = streams;
        let request = Request::Attach { container: container.id.to_string(), stdin, stdout, stderr };
        let (reply, fds) = shim.request(request, &[]).await?;
        let Reply::Attached { stdin, stdout, stderr, terminal } = reply else {
            return Err(Error::new(Kind::Internal, format!("the shim answered an attach with {reply:?}")));
        };
        let mut fds = fds.into_iter();
        let mut next = |there: bool| if there { fds.next() } else { None };
        let (stdin, stdout, stderr, terminal) = (next(stdin), next(stdout), next(stderr), next(terminal));
        let plan = container.plan();
        let leaves_with_input = stdin.is_some() && (plan.process.terminal || !plan.stdin_once);
        let end = Box::pin(async move {
            container.wait_exited().await;
            Ok(None)
        });
        Ok(Session { stdin, stdout, stderr, terminal, leaves_with_input, end })
    }

    /// Connects to a port on a pod's loopback: IPv4, or IPv6 where nobody listens.
    pub async fn connect(&self, pod: &str, port: u16) -> Result<TcpStream> {
        let shim = self.index.pod(pod)?.shim()?;
        let first = match dial(&shim, (Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        dial(&shim, (Ipv6Addr::LOCALHOST, port).into()).await.map_err(|second| {
            let message = format!(
                "connect to port {port} of pod {pod}: {first} (127.0.0.1), {second} (::1); does a program in the pod \
                 listen there?"
            );
            Error::new(Kind::Unavailable, message)
        })
    }
}

impl Session {
    /// Makes pipes for the streams that are wanted; the others lead nowhere. Gives the command's ends.
    fn pipes(&mut self, streams: SessionStreams) -> Result<Stdio> {
        let nowhere = || {
            let null = std::fs::File::options().read(true).write(true).open("/dev/null");
            null.map(OwnedFd::from).map_err(|error| Error::io("open /dev/null", error))
        };
        let stdin = if streams.stdin {
            let (theirs, ours) = pipe()?;
            self.stdin = Some(ours);
            theirs
        } else {
            nowhere()?
        };
        let output = |wanted: bool, end: &mut Option<OwnedFd>| {
            if !wanted {
                return nowhere();
            }
            let (ours, theirs) = pipe()?;
            *end = Some(ours);
            Ok(theirs)
        };
        let stdout = output(streams.stdout, &mut self.stdout)?;
        Ok(Stdio::Ends([stdin, stdout, output(streams.stderr, &mut self.stderr)?]))
    }
}

fn ended() -> SessionEnd {
    Box::pin(std::future::ready(Ok(None)))
}

/// Connects a socket that the shim has made, for it is in the pod's network namespace.
async fn dial(shim: &Arc<Shim>, address: SocketAddr) -> std::result::Result<TcpStream, std::io::Error> {
    let request = Request::Socket { ipv6: address.is_ipv6() };
    let (_, fds) = shim.request(request, &[]).await.map_err(std::io::Error::other)?;
    let socket = fds.into_iter().next().ok_or_else(|| std::io::Error::other("the shim sent no socket"))?;
    let socket = TcpSocket::from_std_stream(TcpStream::from(socket));
    match tokio::time::timeout(CONNECT_LIMIT, socket.connect(address)).await {
        Ok(stream) => stream?.into_std(),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

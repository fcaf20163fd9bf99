//! The daemon's end of the connection to a pod's shim.
//!
//! A shim inherits its listening socket as descriptor 3, so that a request can be sent before it has even begun to run;
//! after a restart the daemon connects to the same socket, `STATE/pods/ID/shim.sock`.

mod program;
mod wire;

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
    process::{WaitId, WaitIdOptions, waitid},
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
};
use tripod_shim_protocol::{
    Event, ExecPlan, Failure, FailureKind, FromShim, LaunchPlan, Reply, Request, RequestId, ToShim, frame, left_out,
};

pub use program::ShimProgram;

use crate::{ContainerId, Error, Kind, PodId, Result, plugin::Task};

/// Longest time that a shim may take to answer. A launch is bounded by its own, longer limit: its mounts can be slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const LAUNCH_LIMIT: Duration = Duration::from_secs(120);

/// Name of the socket in the pod's folder.
const SOCKET: &str = "shim.sock";

type Answer = oneshot::Sender<(Result<Reply, Failure>, Vec<OwnedFd>)>;

/// A shim that holds a pod.
#[derive(Debug)]
pub struct Shim {
    pod: PodId,
    writer: tokio::sync::Mutex<wire::Writer>,
    next: AtomicU64,
    /// Protocol version that it speaks; 0 until it has told.
    version: AtomicU32,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    answers: Mutex<HashMap<RequestId, Answer>>,
    execs: Mutex<HashMap<String, oneshot::Sender<i32>>>,
    /// True once the connection has ended, and the shim with it.
    gone: watch::Sender<bool>,
}

/// Ends of containers, in order. It ends itself when the shim is gone.
pub(crate) type ShimEvents = mpsc::UnboundedReceiver<Event>;

impl Shim {
    /// Starts a shim for a pod, and tells its PID. It does not wait for it: the first request does.
    pub(crate) fn spawn(program: &ShimProgram, pod: &PodId, dir: &Path) -> Result<(Self, ShimEvents, i32)> {
        let step =
            |step: &'static str| move |error| Error::io(format!("{step} of pod {pod}"), std::io::Error::from(error));
        let flags = SocketFlags::CLOEXEC;
        let socket = || rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let listener = socket().map_err(step("make the shim's socket"))?;
        with_address(dir, |address| rustix::net::bind(&listener, address)).map_err(step("bind the shim's socket"))?;
        rustix::net::listen(&listener, 8).map_err(step("listen on the shim's socket"))?;
        let stream = connect(dir).map_err(step("connect to the shim"))?;

        let log = std::fs::File::create(dir.join("shim.log"))
            .map_err(|error| Error::io(format!("make the log of the shim of pod {pod}"), error))?;
        let null = std::fs::File::open("/dev/null").map_err(|error| Error::io("open /dev/null", error))?;
        let fds = [null.as_fd(), null.as_fd(), log.as_fd(), listener.as_fd()];
        let child = tripod_sys::spawn::spawn(program.as_fd(), &["tripod-shim", pod.as_str()], &[], &fds)
            .map_err(|error| Error::io(format!("start the shim of pod {pod}"), error))?;
        let (shim, events) = Self::over(pod, stream, Some(child.pidfd))?;
        Ok((shim, events, child.pid.as_raw_nonzero().get()))
    }

    /// Connects to the shim that an earlier daemon started; `None` if it is gone.
    pub(crate) fn find(pod: &PodId, dir: &Path) -> Result<Option<(Self, ShimEvents)>> {
        match connect(dir) {
            Ok(stream) => Self::over(pod, stream, None).map(Some),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
            Err(error) => Err(Error::io(format!("connect to the shim of pod {pod}"), std::io::Error::from(error))),
        }
    }

    /// `child` is the shim's process if it is this daemon's child.
    fn over(pod: &PodId, stream: std::os::unix::net::UnixStream, child: Option<OwnedFd>) -> Result<(Self, ShimEvents)> {
        let stream = UnixStream::from_std(stream)
            .map_err(|error| Error::io(format!("watch the connection to the shim of pod {pod}"), error))?;
        let (reader, writer) = stream.into_split();
        let shared =
            Arc::new(Shared { answers: Mutex::default(), execs: Mutex::default(), gone: watch::Sender::new(false) });
        let (events, received) = mpsc::unbounded_channel();
        tokio::spawn(read_all(pod.clone(), wire::Reader::new(reader), Arc::clone(&shared), events, child));
        let shim = Self {
            pod: pod.clone(),
            writer: tokio::sync::Mutex::new(wire::Writer::new(writer)),
            next: AtomicU64::new(1),
            version: AtomicU32::new(0),
            shared,
        };
        Ok((shim, received))
    }

    /// Sends a request with its file descriptors and waits for the answer.
    pub async fn request(&self, request: Request, fds: &[OwnedFd]) -> Result<(Reply, Vec<OwnedFd>)> {
        let limit = match &request {
            Request::Launch(_) | Request::LaunchOci(_) => LAUNCH_LIMIT,
            // Each stage of a hook has the hook's limit.
            Request::LaunchHooked(hooked) => LAUNCH_LIMIT + hooked.limit(),
            _ => ANSWER_LIMIT,
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.shared.answers).insert(id, answer);
        let _waiting = Waiting { shared: &self.shared, id };
        let exchange = async {
            let bytes = frame::encode(&ToShim { id, request }, fds.len()).map_err(|error| {
                Error::with(Kind::InvalidArgument, format!("encode a request to pod {}", self.pod), error)
            })?;
            self.writer.lock().await.write(&bytes, fds).await.map_err(|error| self.lost(Some(error)))?;
            answered.await.map_err(|_| self.lost(None))
        };
        let outcome = tokio::time::timeout(limit, exchange).await;
        match outcome {
            Ok(Ok((result, fds))) => {
                let reply = result.map_err(|failure| refused(&failure))?;
                if let Reply::Ready { version, .. } | Reply::Report { version, .. } = reply {
                    self.version.store(version, Ordering::Relaxed);
                }
                Ok((reply, fds))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(
                Kind::DeadlineExceeded,
                format!("the shim of pod {} did not answer within {} s; a mount may hang", self.pod, limit.as_secs()),
            )),
        }
    }

    /// Refuses a container that this shim, which an older tripod started, would leave unconfined.
    pub(crate) fn knows(&self, plan: &LaunchPlan) -> Result<()> {
        let version = self.version.load(Ordering::Relaxed);
        let Some((what, since)) = left_out(version, plan) else { return Ok(()) };
        let message = format!(
            "the shim of pod {} was started by an older tripod and knows nothing of {what} (it speaks version {version} \
             of the protocol, {since} is needed): remove the pod and make it anew",
            self.pod
        );
        Err(Error::new(Kind::FailedPrecondition, message))
    }

    /// A request that is answered with "done".
    pub async fn tell(&self, request: Request) -> Result<()> {
        self.request(request, &[]).await.map(drop)
    }

    /// Starts one more process in a running container; with a terminal, its master is returned.
    pub(crate) async fn exec(&self, exec: ExecPlan, stdio: &[OwnedFd]) -> Result<Option<OwnedFd>> {
        let (reply, fds) = self.request(Request::Exec(Box::new(exec)), stdio).await?;
        Task::try_from(reply)?;
        Ok(fds.into_iter().next())
    }

    /// Sends a signal to the first process of a container.
    pub(crate) async fn signal(&self, container: &ContainerId, signal: i32) -> Result<()> {
        self.tell(Request::Signal { container: container.to_string(), signal }).await
    }

    /// Says when the exec of this name ends, with its exit code. To be called before the exec is started.
    pub(crate) fn exec_end(&self, exec: &str) -> oneshot::Receiver<i32> {
        let (end, ended) = oneshot::channel();
        lock(&self.shared.execs).insert(exec.to_owned(), end);
        ended
    }

    /// Nobody waits for the end of this exec any more.
    pub(crate) fn forget_exec(&self, exec: &str) {
        lock(&self.shared.execs).remove(exec);
    }

    /// Waits until the shim is gone.
    pub(crate) async fn gone(&self) {
        let mut gone = self.shared.gone.subscribe();
        // An error means that the sender is gone, and so is the connection.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    fn lost(&self, error: Option<std::io::Error>) -> Error {
        let message = format!("the shim of pod {} is gone; stop the pod and make a new one", self.pod);
        match error {
            Some(error) => Error::with(Kind::Unavailable, message, error),
            None => Error::new(Kind::Unavailable, message),
        }
    }
}

/// A request that somebody waits for, until he has his answer or goes away.
struct Waiting<'a> {
    shared: &'a Shared,
    id: RequestId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.shared.answers).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the shim could not do, as the engine's error.
fn refused(failure: &Failure) -> Error {
    let kind = match failure.kind {
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::NotRunning => Kind::FailedPrecondition,
        FailureKind::Exists => Kind::AlreadyExists,
        FailureKind::Program | FailureKind::Plan => Kind::InvalidArgument,
        FailureKind::Internal => Kind::Internal,
    };
    Error::new(kind, failure.to_string())
}

/// The socket's address through a descriptor of its folder: a path of any depth fits into the 108 bytes of an address.
fn with_address<T>(
    dir: &Path,
    call: impl FnOnce(&SocketAddrUnix) -> Result<T, rustix::io::Errno>,
) -> Result<T, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    let folder = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&folder.as_fd());
    call(&SocketAddrUnix::new(format!("/proc/self/fd/{raw}/{SOCKET}"))?)
}

fn connect(dir: &Path) -> Result<std::os::unix::net::UnixStream, rustix::io::Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    with_address(dir, |address| rustix::net::connect(&stream, address))?;
    Ok(stream.into())
}

/// Collects the exit status of a shim whose connection has ended, so that it does not stay a zombie.
async fn reap(pidfd: OwnedFd) {
    let mut pause = Duration::from_millis(1);
    while let Ok(None) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Hands answers and events on until the connection ends.
async fn read_all(
    pod: PodId,
    mut reader: wire::Reader,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    child: Option<OwnedFd>,
) {
    loop {
        match reader.next().await {
            Ok(Some((FromShim::Reply { id, result }, fds))) => {
                if let Some(answer) = lock(&shared.answers).remove(&id) {
                    // Whoever asked may have run out of time.
                    let _ = answer.send((result, fds));
                }
            }
            Ok(Some((FromShim::Event(Event::ExecExited { exec, code }), _))) => {
                if let Some(end) = lock(&shared.execs).remove(&exec) {
                    let _ = end.send(code);
                }
            }
            Ok(Some((FromShim::Event(event), _))) => {
                // The receiver ends only with the engine.
                let _ = events.send(event);
            }
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%pod, %error, "the connection to the shim broke");
                break;
            }
        }
    }
    shared.gone.send_replace(true);
    lock(&shared.answers).clear();
    lock(&shared.execs).clear();
    drop(events);
    if let Some(child) = child {
        reap(child).await;
    }
}

#[cfg(test)]
mod tests;

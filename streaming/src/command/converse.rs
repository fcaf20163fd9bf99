//! The time in which both the process and its client are there.

use std::{io, os::fd::OwnedFd, pin::Pin, pin::pin};

use futures::{
    FutureExt,
    future::{Fuse, join},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{oneshot, watch},
    time::{Duration, Instant, sleep_until},
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    Command,
    pump::{pump, register},
};
use crate::{
    Backend, BoxFuture, End, Refusal,
    client::Outputs,
    control::{Control, Interruption},
    fault::Fault,
    status::Outcome,
};

/// Time for a process to end by itself after its client left in order to end its input.
const GRACE: Duration = Duration::from_secs(10);

/// Why a session is over.
pub(super) enum Over {
    /// The client is to be told, at once if it is cut off.
    Told { outcome: Outcome, code: CloseCode, hurry: bool },
    /// There is nobody to tell.
    Gone,
}

/// A process whose descriptors can be waited for.
pub(super) struct Running {
    pub(super) stdin: Option<AsyncFd<OwnedFd>>,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) leaves_with_input: bool,
    stdout: Option<AsyncFd<OwnedFd>>,
    stderr: Option<AsyncFd<OwnedFd>>,
    end: BoxFuture<Result<End, Refusal>>,
}

/// Asks for the process.
pub(super) async fn start(backend: &dyn Backend, command: &Command) -> Result<Running, Over> {
    let process = match command {
        Command::Exec(request) => backend.exec(request).await?,
        Command::Attach(request) => backend.attach(request).await?,
    };
    let ready = |fd: Option<OwnedFd>, interest| fd.map(|fd| register(fd, interest)).transpose();
    Ok(Running {
        stdin: ready(process.stdin, Interest::WRITABLE)?,
        stdout: ready(process.stdout, Interest::READABLE)?,
        stderr: ready(process.stderr, Interest::READABLE)?,
        terminal: process.terminal,
        leaves_with_input: process.leaves_with_input,
        end: process.end,
    })
}

/// What a session looks at.
pub(super) struct Conversation<'a> {
    pub(super) control: &'a Control,
    /// Tells everybody that the process has ended.
    pub(super) ending: &'a watch::Sender<bool>,
    pub(super) ended: watch::Receiver<bool>,
    pub(super) leaves_to_end: bool,
    /// The process is there for this client alone.
    pub(super) owned: bool,
    /// The client has ended its input and with it its attachment.
    pub(super) left: oneshot::Receiver<()>,
}

impl Conversation<'_> {
    /// Copies until the process has ended and all that it wrote is sent, or until something cuts it off.
    pub(super) async fn run<F>(self, mut running: Running, outputs: &mut Outputs, mut feed: Pin<&mut Fuse<F>>) -> Over
    where
        F: Future<Output = Result<(), Fault>>,
    {
        let Self { control, ending, ended, leaves_to_end, owned, left } = self;
        let mut detached = left.fuse();
        let keep_alive = outputs.keep_alive();
        let mut keep_alive = pin!(keep_alive);
        let grace = if leaves_to_end { GRACE } else { Duration::ZERO };
        let mut interrupted = pin!(control.interrupted(grace));
        let mut pumps = pin!(join(
            pump(running.stdout.as_ref(), &mut outputs.stdout, ended.clone(), &control.idle),
            pump(running.stderr.as_ref(), &mut outputs.stderr, ended, &control.idle),
        ));
        let (mut pumping, mut end, mut left) = (true, None, None);
        loop {
            match (pumping, end.take()) {
                (false, Some(_)) if left.is_some() => return Over::Gone,
                (false, Some(result)) => return Over::from(result),
                (_, result) => end = result,
            }
            tokio::select! {
                result = &mut running.end, if end.is_none() => {
                    ending.send_replace(true);
                    end = Some(result);
                }
                _ = &mut pumps, if pumping => pumping = false,
                Ok(()) = &mut detached => return Over::told(Outcome::Detached),
                fed = feed.as_mut() => match fed {
                    Ok(()) if leaves_to_end && owned => left = Some(Instant::now() + GRACE),
                    Ok(()) => return Over::Gone,
                    Err(fault) => return fault.into(),
                },
                () = until(left), if left.is_some() => return Over::Gone,
                interruption = &mut interrupted => return interruption.into(),
                () = &mut keep_alive => {}
            }
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

impl Over {
    fn told(outcome: Outcome) -> Self {
        Self::Told { outcome, code: CloseCode::Normal, hurry: false }
    }
}

impl From<Result<End, Refusal>> for Over {
    fn from(end: Result<End, Refusal>) -> Self {
        match end {
            Ok(End::Exited(code)) => Self::told(Outcome::Exited(code)),
            Ok(End::Detached) => Self::told(Outcome::Detached),
            Err(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for Over {
    fn from(refusal: Refusal) -> Self {
        Self::told(Outcome::Failed(refusal.message))
    }
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::told(Outcome::Failed(format!("cannot wait for the streams of the process: {error}")))
    }
}

impl From<Interruption> for Over {
    fn from(interruption: Interruption) -> Self {
        match interruption {
            Interruption::Gone => Self::Gone,
            Interruption::Idle(_) | Interruption::Stopped => {
                Self::Told { outcome: Outcome::Failed(interruption.to_string()), code: CloseCode::Normal, hurry: true }
            }
        }
    }
}

impl From<Fault> for Over {
    fn from(fault: Fault) -> Self {
        Self::Told { outcome: Outcome::Failed(fault.to_string()), code: fault.code, hurry: true }
    }
}

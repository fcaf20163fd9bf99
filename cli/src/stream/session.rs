//! One session of exec or attach: the terminal or the pipes here, the daemon's streaming server there, and between them
//! a WebSocket with the channels of Kubernetes' remote command protocol, version 5.

use std::time::Duration;

use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Bytes, ClientRequestBuilder, Message,
        http::{Uri, header},
    },
};

use super::{
    dial::{CONNECT, Wire, dial},
    keys::{DetachKeys, Watcher},
    pipes::{self, Output, Target},
    signals::Signals,
    status::Verdict,
};
use crate::{
    CliError,
    args::Streaming,
    terminal::{self, Raw, Size},
};

/// The protocols, the better one first: in the older one nothing says that standard input has ended.
const PROTOCOL: &str = "v5.channel.k8s.io";
const WITHOUT_CLOSE: &str = "v4.channel.k8s.io";

/// Channels: the first byte of each message.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// Ends the channel whose number follows.
const CLOSE: u8 = 255;

/// How long the other side may take to close the connection after its last word, and the reader of our output to take
/// the rest of it when the session was left.
const LAST_WORDS: Duration = Duration::from_secs(1);

type Socket = WebSocketStream<Box<dyn Wire>>;

/// What a session is to be.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Where the daemon serves it.
    pub(crate) url: String,
    /// Certificates for TLS.
    pub(crate) files: &'a Streaming,
    /// Whether standard input is handed on.
    pub(crate) input: bool,
    /// Whether a terminal here is one with the terminal there.
    pub(crate) terminal: bool,
    /// Keys that end the session and nothing else.
    pub(crate) detach: DetachKeys,
    /// When the session ends at the latest.
    pub(crate) limit: Option<Duration>,
}

/// How a session has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The other side says how.
    Said(Verdict),
    /// The keys were typed.
    Detached,
    /// This program got a signal.
    Signalled(i32),
    /// The limit is over.
    TimedOut,
    /// Nobody reads the output any more.
    OutputClosed,
    /// The connection ended before the other side has said how.
    Broken(String),
}

/// Carries a session through. The terminal is as it was when this returns.
pub(crate) async fn run(plan: Plan<'_>) -> Result<Ending, CliError> {
    let mut signals = Signals::listen()?;
    let (socket, can_close) = connect(&plan).await?;
    let (to, from) = socket.split();
    let failed = || CliError::io("hand on the standard streams");
    let output = Output::start().map_err(failed())?;
    let raw = match plan.terminal && plan.input {
        true => Some(Raw::enter().map_err(CliError::io("make the terminal raw"))?),
        false => None,
    };
    let input = plan.input.then(pipes::input).transpose().map_err(failed())?;
    let (sizes, mut resized) = watch::channel(terminal::size().filter(|_| plan.terminal));
    // What is there already is told as well.
    resized.mark_changed();
    let sender = Sender { to, can_close, watcher: Watcher::new(plan.detach) };
    let ending = tokio::select! {
        ending = receive(from, &output) => ending,
        () = sender.run(input, resized) => Ending::Detached,
        number = signals.follow(raw.as_ref(), plan.terminal.then_some(sizes)) => Ending::Signalled(number),
        () = elapsed(plan.limit) => Ending::TimedOut,
    };
    // What has come is shown, however long its reader takes: but who wants to leave does not wait for that.
    let patience = match ending {
        Ending::Signalled(_) => return Ok(ending),
        Ending::Detached | Ending::TimedOut => Some(LAST_WORDS),
        _ => None,
    };
    tokio::select! {
        written = output.finish() => match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Ending::OutputClosed),
            Err(error) => Err(CliError::io("write the output")(error)),
            Ok(()) => Ok(ending),
        },
        number = signals.follow(raw.as_ref(), None) => Ok(Ending::Signalled(number)),
        () = elapsed(patience) => Ok(ending),
    }
}

async fn elapsed(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Opens the connection; says whether the end of standard input can be told over it.
async fn connect(plan: &Plan<'_>) -> Result<(Socket, bool), CliError> {
    let wrong = |why: String| CliError::Stream(format!("open the stream {}: {why}", plan.url));
    let uri: Uri = plan.url.parse().map_err(|error| wrong(format!("{error}")))?;
    let wire = dial(&uri, plan.files).await?;
    let mut parts = uri.into_parts();
    let scheme = if parts.scheme.is_some_and(|scheme| scheme.as_str() == "https") { "wss" } else { "ws" };
    parts.scheme = scheme.parse().ok();
    let uri = Uri::from_parts(parts).map_err(|error| wrong(error.to_string()))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(PROTOCOL).with_sub_protocol(WITHOUT_CLOSE);
    match timeout(CONNECT, client_async(request, wire)).await {
        Ok(Ok((socket, answer))) => {
            let agreed = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            Ok((socket, agreed.is_some_and(|name| name == PROTOCOL)))
        }
        Ok(Err(error)) => Err(wrong(refusal(&error))),
        Err(_) => Err(wrong(format!("no answer within {} s", CONNECT.as_secs()))),
    }
}

/// Why a server does not open a WebSocket: its own words, where it has any.
fn refusal(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(answer) => {
            let body = answer.body().as_deref().unwrap_or_default();
            format!("{} {}", answer.status(), String::from_utf8_lossy(body).trim()).trim_end().to_owned()
        }
        other => other.to_string(),
    }
}

/// Hands on what comes, until the other side has said how it ended.
async fn receive(mut from: SplitStream<Socket>, output: &Output) -> Ending {
    let mut verdict = Vec::new();
    loop {
        // The last word may come before the last output; what comes after it for long is none of this session.
        let next = match verdict.is_empty() {
            true => from.next().await,
            false => timeout(LAST_WORDS, from.next()).await.unwrap_or_default(),
        };
        let mut data = match next {
            Some(Ok(Message::Binary(data))) => data,
            // Base64 and text are for browsers; whatever else there is are pings and their like.
            Some(Ok(Message::Close(_))) | None => return last(&verdict, "the other side closed the connection"),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return last(&verdict, &error.to_string()),
        };
        if data.is_empty() {
            continue;
        }
        let target = match data.split_to(1)[0] {
            STDOUT => Target::Out,
            STDERR => Target::Err,
            STATUS => {
                verdict.extend_from_slice(&data);
                continue;
            }
            _ => continue,
        };
        // Channels are opened with an empty message.
        if !data.is_empty() && !output.push(target, data).await {
            return Ending::OutputClosed;
        }
    }
}

fn last(verdict: &[u8], why: &str) -> Ending {
    if verdict.is_empty() { Ending::Broken(why.to_owned()) } else { Ending::Said(Verdict::read(verdict)) }
}

/// Hands on input and sizes of the window.
struct Sender {
    to: SplitSink<Socket, Message>,
    can_close: bool,
    watcher: Watcher,
}

// === impl Sender ===

impl Sender {
    /// Returns when the keys were typed, and only then: what else ends a session is seen by who reads.
    async fn run(mut self, mut input: Option<mpsc::Receiver<Vec<u8>>>, mut resized: watch::Receiver<Option<Size>>) {
        loop {
            let sent = tokio::select! {
                Ok(()) = resized.changed() => {
                    let size = *resized.borrow_and_update();
                    self.resize(size).await
                }
                typed = next(&mut input) => match typed {
                    Some(bytes) => match self.watcher.pass(&bytes) {
                        (through, true) => return drop(self.send(STDIN, &through).await),
                        (through, false) => self.send(STDIN, &through).await,
                    },
                    None => {
                        input = None;
                        self.close_input().await
                    }
                },
            };
            if sent.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn resize(&mut self, size: Option<Size>) -> tungstenite::Result<()> {
        let Some(size) = size else { return Ok(()) };
        let text = format!(r#"{{"Width":{},"Height":{}}}"#, size.columns, size.rows);
        self.send(RESIZE, text.as_bytes()).await
    }

    async fn close_input(&mut self) -> tungstenite::Result<()> {
        if self.can_close {
            return self.send(CLOSE, &[STDIN]).await;
        }
        eprintln!(
            "tripod: the daemon's streaming server is of an older kind: the command is not told that input ended"
        );
        Ok(())
    }

    async fn send(&mut self, channel: u8, data: &[u8]) -> tungstenite::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(data.len() + 1);
        bytes.push(channel);
        bytes.extend_from_slice(data);
        self.to.send(Message::Binary(Bytes::from(bytes))).await
    }
}

async fn next(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

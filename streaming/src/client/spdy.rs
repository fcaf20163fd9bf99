//! Streams of a command over SPDY: the client opens one for each of its streams, and says in a header which is which.

use std::time::Duration;

use futures::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{Client, Outputs, Source};
use crate::{
    BoxFuture, Streams,
    control::{Control, keep_alive},
    output::Output,
    spdy::{self, Config, Headers, Incoming, Reader, Role, Status, Stream, Writer},
    status::Outcome,
    upgrade::Version,
};

/// A session has five; a few more are refused one by one.
const STREAMS: usize = 16;
/// Time for a client to hear why its session does not begin.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the client sends.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) stdin: Option<Reader>,
    pub(crate) resize: Option<Reader>,
    pub(crate) incoming: Incoming,
}

/// The connection, and the sides of streams that nobody uses.
#[derive(Debug)]
pub(super) struct Connection {
    connection: spdy::Connection,
    /// Dropped, they would reset their streams.
    _readers: Vec<Reader>,
    writers: Vec<Writer>,
}

impl Connection {
    pub(super) fn keep_alive(&self) -> impl Future<Output = ()> + Send + use<> {
        keep_alive(self.connection.clone())
    }

    pub(super) fn closed(&self) -> BoxFuture<()> {
        Box::pin(self.connection.closed().map(drop))
    }

    /// Finishes what is not finished yet.
    pub(super) async fn finish(&mut self) {
        for writer in self.writers.drain(..) {
            // A client that is not there any more needs not know.
            let _ = writer.finish().await;
        }
    }
}

/// The streams that have been opened.
#[derive(Debug, Default)]
struct Opened {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Takes the connection over and waits for the streams. None if they do not all come.
pub(crate) async fn open<T>(io: T, wanted: Streams, version: Version, control: &Control) -> Option<Client>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = control.socket.clone();
    let gone = Box::pin(async move { socket.gone().await });
    let config = Config { max_streams: STREAMS, gone: Some(gone), ..Config::default() };
    let (connection, mut incoming) = spdy::Connection::new(io, Role::Server, config);
    let mut opened = Opened::default();
    let wait = async {
        while !opened.complete(wanted, version) {
            opened.take(incoming.next().await?, wanted, version).await;
        }
        Some(())
    };
    let failure = tokio::select! {
        waited = timeout(control.creation, wait) => match waited {
            Ok(Some(())) => return Some(opened.client(connection, incoming, version)),
            Ok(None) => return None,
            Err(_) => {
                let seconds = control.creation.as_secs();
                format!("the client has not opened the streams of its session within {seconds} seconds")
            }
        },
        interruption = control.interrupted(Duration::ZERO) => interruption.to_string(),
    };
    let closed = connection.closed();
    let tell = async {
        if let Some(error) = opened.error.take() {
            let (_reader, mut writer) = error.split();
            writer.write(&Outcome::Failed(failure).document(version)).await?;
            writer.finish().await?;
            while incoming.next().await.is_some() {}
        }
        Ok::<_, spdy::Error>(())
    };
    // Not to be told is the client's loss.
    let _ = timeout(FAREWELL, tell).await;
    drop((connection, incoming, opened));
    let _ = timeout(FAREWELL, closed).await;
    None
}

impl Opened {
    fn complete(&self, wanted: Streams, version: Version) -> bool {
        let resized = wanted.terminal && version >= Version::V3;
        let there = |stream: &Option<Stream>, wanted: bool| stream.is_some() || !wanted;
        self.error.is_some()
            && there(&self.stdin, wanted.stdin)
            && there(&self.stdout, wanted.stdout)
            && there(&self.stderr, wanted.stderr)
            && there(&self.resize, resized)
    }

    /// Accepts a stream if it is one of those that the session has, and refuses it otherwise.
    async fn take(&mut self, stream: Stream, wanted: Streams, version: Version) {
        let place = match stream.headers().get("streamType") {
            Some("error") => Some(&mut self.error),
            Some("stdin") if wanted.stdin => Some(&mut self.stdin),
            Some("stdout") if wanted.stdout => Some(&mut self.stdout),
            Some("stderr") if wanted.stderr => Some(&mut self.stderr),
            Some("resize") if wanted.terminal && version >= Version::V3 => Some(&mut self.resize),
            _ => None,
        };
        match place {
            Some(place @ None) => {
                // A stream that breaks is noticed where it is used.
                let _ = stream.reply(&Headers::new(), false).await;
                *place = Some(stream);
            }
            _ => stream.reset(Status::REFUSED_STREAM),
        }
    }

    fn client(self, connection: spdy::Connection, incoming: Incoming, version: Version) -> Client {
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        let mut output = |stream: Option<Stream>| {
            stream.map_or_else(Output::nowhere, |stream| {
                let (reader, writer) = stream.split();
                readers.push(reader);
                Output::spdy(writer)
            })
        };
        let mut input = |stream: Option<Stream>| {
            let (reader, writer) = stream?.split();
            writers.push(writer);
            Some(reader)
        };
        let source = Source::Spdy(Inputs { stdin: input(self.stdin), resize: input(self.resize), incoming });
        let (stdout, stderr, status) = (output(self.stdout), output(self.stderr), output(self.error));
        let connection = super::Connection::Spdy(Connection { connection, _readers: readers, writers });
        let outputs = Outputs { stdout, stderr, version, status, connection };
        Client { source, outputs, leaves_to_end: false }
    }
}

//! Port-forward over SPDY, on the connection itself or inside a WebSocket.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    LINGER, connect,
    pairs::{Kind, Label, Pairs, Placed},
};
use crate::{
    Backend,
    chunk::Chunk,
    control::{Control, keep_alive},
    idle::Idle,
    spdy::{Config, Connection, GoAwayStatus, Headers, Reader, Role, Status, Stream, Writer},
};

/// Connections at the same time, two streams each.
const STREAMS: usize = 4096;

/// Serves a client until it leaves.
pub(crate) async fn run<T>(backend: Arc<dyn Backend>, pod: String, io: T, control: &Control)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = control.socket.clone();
    let gone = Box::pin(async move { socket.gone().await });
    let config = Config { max_streams: STREAMS, gone: Some(gone), ..Config::default() };
    let (connection, mut incoming) = Connection::new(io, Role::Server, config);
    let mut pairs = Pairs::new(control.creation);
    let mut running = JoinSet::new();
    let mut interrupted = pin!(control.interrupted(Duration::ZERO));
    let mut alive = pin!(keep_alive(connection.clone()));
    loop {
        tokio::select! {
            stream = incoming.next() => {
                let Some(stream) = stream else { break };
                let label = Label::read(stream.id(), |name| stream.headers().get(name));
                let Some(label) = label else {
                    stream.reset(Status::REFUSED_STREAM);
                    continue;
                };
                // A stream that breaks is noticed where it is used.
                let _ = stream.reply(&Headers::new(), false).await;
                let port = label.port;
                match pairs.place(label, stream) {
                    Placed::Waits => {}
                    Placed::Twice(stream) => stream.reset(Status::PROTOCOL_ERROR),
                    Placed::Pair { data, error } => {
                        let (backend, pod, idle) = (backend.clone(), pod.clone(), control.idle.clone());
                        running.spawn(async move { forward(&*backend, &pod, port, data, error, &idle).await });
                    }
                }
            }
            () = until(pairs.next_end()) => {
                for (kind, stream) in pairs.expired(Instant::now()) {
                    running.spawn(alone(kind, stream, control.creation));
                }
            }
            Some(_) = running.join_next() => {}
            _ = &mut interrupted => break,
            () = &mut alive => {}
        }
    }
    running.shutdown().await;
    let farewell = async {
        // A client that is gone needs none.
        let _ = connection.go_away(GoAwayStatus::OK).await;
        let closed = connection.closed();
        drop((connection, incoming, pairs));
        closed.await;
    };
    let _ = timeout(LINGER, farewell).await;
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// A stream whose partner has not come.
async fn alone(kind: Kind, stream: Stream, patience: Duration) {
    if kind == Kind::Data {
        return stream.reset(Status::CANCEL);
    }
    let message = format!("the data stream of this connection has not come within {} seconds", patience.as_secs());
    say(stream, &message).await;
}

/// Sends an error and ends the stream.
async fn say(error: Stream, message: &str) {
    let (_reader, mut writer) = error.split();
    // A client that does not listen stays without.
    if writer.write(message.as_bytes()).await.is_ok() {
        let _ = writer.finish().await;
    }
}

/// One connection to a port.
async fn forward(backend: &dyn Backend, pod: &str, port: u16, data: Stream, error: Stream, idle: &Idle) {
    let mut tcp = match connect(backend, pod, port).await {
        Ok(tcp) => tcp,
        Err(message) => {
            tracing::debug!(pod, port, message, "a port was not reached");
            say(error, &message).await;
            return data.reset(Status::CANCEL);
        }
    };
    let (reader, writer) = data.split();
    // Both sides know of an end of the connection by themselves: it is no error of forwarding.
    let _ = exchange(&mut tcp, reader, writer, idle).await;
    let (_reader, writer) = error.split();
    let _ = writer.finish().await;
}

/// Copies both ways until both are at their end, or one breaks.
async fn exchange(tcp: &mut TcpStream, mut reader: Reader, mut writer: Writer, idle: &Idle) -> io::Result<()> {
    let (mut from_pod, mut to_pod) = tcp.split();
    let up = async {
        while let Some(data) = reader.read().await.map_err(io::Error::other)? {
            idle.touch();
            to_pod.write_all(&data).await?;
            idle.touch();
        }
        to_pod.shutdown().await
    };
    let down = async {
        let (mut chunk, mut buffer) = (Chunk::new(), Vec::new());
        loop {
            buffer.reserve(chunk.size());
            let length = from_pod.read_buf(&mut buffer).await?;
            if length == 0 {
                break;
            }
            chunk.took(length);
            idle.touch();
            writer.write(&buffer).await.map_err(io::Error::other)?;
            idle.touch();
            buffer.clear();
        }
        writer.finish().await.map_err(io::Error::other)
    };
    tokio::try_join!(up, down).map(|_| ())
}

//! Our SPDY against Go's spdystream, both ways: the peer in `peer/` is built from its pinned module. Needs `go`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test must fail loudly where it stands")]

use std::{
    error::Error as StdError,
    net::SocketAddr,
    path::Path,
    process::{Command as Blocking, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};
use tripod_streaming::spdy::{
    Config, Connection, Deflater, Ended, Error, Frame, GoAwayStatus, Headers, Incoming, Reader, Role, Status, Stream,
    Writer,
};

type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

const LIMIT: Duration = Duration::from_secs(120);
const BIG: u64 = 100 << 20;

/// The peer's program, in a folder that goes with it.
struct Peer {
    folder: TempDir,
}

impl Peer {
    fn build() -> Self {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer");
        let built = Blocking::new("go")
            .args(["build", "-mod=readonly", "-o"])
            .arg(folder.path().join("peer"))
            .arg(".")
            .current_dir(source)
            .env("CGO_ENABLED", "0")
            .status()
            .expect("go must be installed to build the peer");
        assert!(built.success(), "go build of the peer failed");
        Self { folder }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.folder.path().join("peer"));
        command.kill_on_drop(true);
        command
    }

    /// A running server and its address; it ends with its input.
    async fn serve(&self) -> (Child, SocketAddr) {
        let mut child = self.command().arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        timeout(LIMIT, BufReader::new(stdout).read_line(&mut line)).await.expect("in time").unwrap();
        (child, line.trim().parse().unwrap())
    }
}

fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (offset..offset + length as u64).map(|at| (at % 251) as u8).collect()
}

async fn send(writer: &mut Writer, count: u64, piece: usize) -> Result<(), Error> {
    // 251 pieces of the pattern and it starts again, so one buffer serves for all.
    let buffer = pattern(0, piece + 251);
    let mut offset = 0;
    while offset < count {
        let start = (offset % 251) as usize;
        let length = piece.min((count - offset) as usize);
        writer.write(&buffer[start..start + length]).await?;
        offset += length as u64;
    }
    Ok(())
}

async fn receive(reader: &mut Reader) -> Result<u64, Error> {
    let mut wanted = Vec::new();
    let mut offset = 0_u64;
    while let Some(piece) = reader.read().await? {
        let start = (offset % 251) as usize;
        if wanted.len() < start + piece.len() {
            wanted = pattern(0, start + piece.len());
        }
        assert!(wanted[start..start + piece.len()] == piece, "wrong bytes after {offset}");
        offset += piece.len() as u64;
    }
    Ok(offset)
}

/// Does what a stream's headers ask for.
async fn serve(stream: Stream) -> Result<(), Error> {
    let mode = stream.headers().get("mode").unwrap_or_default().to_owned();
    let bytes: u64 = stream.headers().get("bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
    if mode == "refuse" {
        stream.reset(Status::REFUSED_STREAM);
        return Ok(());
    }
    stream.reply(&Headers::from_iter([("mode", mode.as_str())]), false).await?;
    let (mut reader, mut writer) = stream.split();
    match mode.as_str() {
        "echo" => {
            while let Some(piece) = reader.read().await? {
                writer.write(&piece).await?;
            }
            writer.finish().await
        }
        "sink" => {
            let count = receive(&mut reader).await?;
            writer.write(count.to_string().as_bytes()).await?;
            writer.finish().await
        }
        "source" => {
            send(&mut writer, bytes, 100_000).await?;
            writer.finish().await
        }
        "reset" => {
            writer.reset(Status::CANCEL);
            Ok(())
        }
        _ => match reader.read().await {
            Err(Error::Reset { status: Status::CANCEL, .. }) => Ok(()),
            other => panic!("a stream that is held got {other:?}"),
        },
    }
}

/// Serves a connection until it has ended, and checks that every stream ended as it should.
async fn session(socket: TcpStream) {
    socket.set_nodelay(true).unwrap();
    let (connection, mut incoming) = Connection::new(socket, Role::Server, Config::default());
    let mut streams = tokio::task::JoinSet::new();
    while let Some(stream) = incoming.next().await {
        streams.spawn(async move {
            let id = stream.id();
            match serve(stream).await {
                // The client may reset what it does not want any more.
                Ok(()) | Err(Error::Reset { .. }) => {}
                Err(error) => panic!("stream {id}: {error}"),
            }
        });
    }
    while let Some(stream) = streams.join_next().await {
        stream.unwrap();
    }
    let ended = connection.closed().await;
    assert!(matches!(ended, Ended::GoAway(GoAwayStatus::OK) | Ended::Eof), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_client_against_our_server() -> Outcome {
    let peer = Peer::build();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = peer.command().arg("client").arg(listener.local_addr()?.to_string()).spawn()?;
    let mut sessions = tokio::task::JoinSet::new();
    let status = loop {
        tokio::select! {
            accepted = listener.accept() => {
                sessions.spawn(session(accepted?.0));
            }
            status = timeout(LIMIT, client.wait()) => break status??,
        }
    };
    assert!(status.success(), "the Go client failed: {status}");
    while let Some(session) = timeout(LIMIT, sessions.join_next()).await? {
        session?;
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> (Connection, Incoming) {
    let socket = TcpStream::connect(address).await.unwrap();
    Connection::new(socket, Role::Client, Config::default())
}

async fn open(connection: &Connection, mode: &str, bytes: u64) -> Result<Stream, Error> {
    let headers = Headers::from_iter([("mode", mode), ("bytes", &bytes.to_string())]);
    let mut stream = connection.open(&headers, false).await?;
    let reply = timeout(LIMIT, stream.replied()).await.expect("a reply in time")?;
    assert_eq!(reply.get("mode"), Some(mode));
    Ok(stream)
}

async fn text(mut reader: Reader) -> Result<String, Error> {
    let mut text = Vec::new();
    while let Some(piece) = reader.read().await? {
        text.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(text).unwrap())
}

async fn echo(connection: Connection, bytes: u64) -> Result<(), Error> {
    let (mut reader, mut writer) = open(&connection, "echo", 0).await?.split();
    let sent = tokio::spawn(async move {
        send(&mut writer, bytes, 4096).await?;
        writer.finish().await
    });
    assert_eq!(receive(&mut reader).await?, bytes);
    sent.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_against_a_go_server() -> Outcome {
    let peer = Peer::build();
    let (mut child, address) = peer.serve().await;
    timeout(LIMIT, async {
        many_streams(address).await?;
        big_both_ways(address).await?;
        resets(address).await?;
        goodbye(address).await
    })
    .await??;
    drop(child.stdin.take());
    assert!(timeout(LIMIT, child.wait()).await??.success());
    Ok(())
}

async fn many_streams(address: SocketAddr) -> Outcome {
    let (connection, _none) = connect(address).await;
    for _ in 0..100 {
        connection.ping().await?;
    }
    let mut streams = tokio::task::JoinSet::new();
    for i in 0..300 {
        streams.spawn(echo(connection.clone(), i * 331));
    }
    while let Some(stream) = streams.join_next().await {
        stream??;
    }
    Ok(())
}

async fn big_both_ways(address: SocketAddr) -> Outcome {
    let (connection, _none) = connect(address).await;
    let (up_reader, mut up) = open(&connection, "sink", 0).await?.split();
    let (mut down, down_writer) = open(&connection, "source", BIG).await?.split();
    let sent = tokio::spawn(async move {
        send(&mut up, BIG, 1 << 20).await?;
        up.finish().await
    });
    assert_eq!(receive(&mut down).await?, BIG);
    down_writer.finish().await?;
    sent.await??;
    // The answer comes after our end.
    assert_eq!(text(up_reader).await?, BIG.to_string());
    Ok(())
}

async fn resets(address: SocketAddr) -> Outcome {
    let (connection, _none) = connect(address).await;
    let refused = open(&connection, "refuse", 0).await.err();
    assert!(matches!(refused, Some(Error::Reset { status: Status::REFUSED_STREAM, .. })), "{refused:?}");
    let (mut reader, _writer) = open(&connection, "reset", 0).await?.split();
    assert!(matches!(reader.read().await, Err(Error::Reset { status: Status::CANCEL, .. })));
    for _ in 0..50 {
        drop(open(&connection, "hold", 0).await?);
    }
    let (mut reader, writer) = open(&connection, "source", 1 << 30).await?.split();
    let mut got = 0;
    while got < 1 << 20 {
        got += reader.read().await?.unwrap().len();
    }
    drop((reader, writer));
    echo(connection, 100_000).await?;
    Ok(())
}

async fn goodbye(address: SocketAddr) -> Outcome {
    let (connection, _none) = connect(address).await;
    echo(connection.clone(), 1000).await?;
    connection.go_away(GoAwayStatus::OK).await?;
    assert!(matches!(connection.open(&Headers::new(), false).await, Err(Error::GoingAway | Error::Ended(_))));
    assert!(matches!(connection.closed().await, Ended::GoAway(_) | Ended::Eof));
    Ok(())
}

/// A client that vanishes while its data waits is noticed through the hook for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_behind_unread_data() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    let (accepted, _) = listener.accept().await?;
    // A second descriptor of the same socket watches it while the connection owns the first.
    let accepted = accepted.into_std()?;
    let watch = TcpStream::from_std(accepted.try_clone()?)?;
    let gone = Box::pin(async move {
        loop {
            match watch.ready(Interest::READABLE | Interest::PRIORITY).await {
                Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return,
            }
        }
    });
    let config = Config { inbox: 1000, gone: Some(gone), grace: Duration::from_millis(100), ..Config::default() };
    let (connection, mut incoming) = Connection::new(TcpStream::from_std(accepted)?, Role::Server, config);

    // Like spdystream, this client has never heard of windows: it sends what the socket takes, and is gone.
    let mut frames = BytesMut::new();
    let (headers, associated, priority) = (Headers::new(), 0, 0);
    let open = Frame::SynStream { stream: 1, associated, priority, fin: false, unidirectional: false, headers };
    open.encode(&mut Deflater::new(), &mut frames)?;
    for _ in 0..20 {
        frames.put_slice(&[0, 0, 0, 1, 0, 0, 100, 0]);
        frames.put_slice(&pattern(0, 100 << 8));
    }
    client.write_all(&frames).await?;
    drop(client);
    let stream = timeout(LIMIT, incoming.next()).await?.expect("the stream");
    let ended = timeout(LIMIT, connection.closed()).await?;
    assert!(matches!(ended, Ended::Gone), "{ended}");
    // What had arrived is still there.
    let (mut reader, _writer) = stream.split();
    let mut got = 0;
    while let Ok(Some(piece)) = reader.read().await {
        got += piece.len();
    }
    assert!(got >= 1000, "{got}");
    Ok(())
}

/// Keeps the limit of the number of tasks honest: a connection's task ends with it.
#[tokio::test]
async fn no_task_is_left() -> Outcome {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await?);
    let address = listener.local_addr()?;
    for _ in 0..20 {
        let (client, _none) = connect(address).await;
        let (server, mut incoming) = Connection::new(listener.accept().await?.0, Role::Server, Config::default());
        let stream = client.open(&Headers::new(), false).await?;
        let theirs = timeout(LIMIT, incoming.next()).await?.expect("the stream");
        let (closed, server_closed) = (client.closed(), server.closed());
        drop((client, _none, stream, theirs, server, incoming));
        timeout(LIMIT, async { (closed.await, server_closed.await) }).await?;
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    timeout(LIMIT, async {
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await?;
    Ok(())
}

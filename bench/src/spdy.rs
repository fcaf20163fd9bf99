//! The client's side of Kubernetes' streams over SPDY/3.1, as client-go opens them: one after the other, each with a
//! reply from the server.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tripod_streaming::spdy::{Config, Error, Headers, Incoming, Reader, Role, Stream, Writer};

use crate::{Failure, remote::Address};

/// Longest answer to an upgrade.
const ANSWER: usize = 4096;

/// A command that runs.
#[derive(Debug)]
pub struct Command {
    session: Session,
    status: Stream,
    stdin: Option<(Reader, Writer)>,
    stdout: Stream,
    stderr: Stream,
}

/// Connections to ports of a pod.
#[derive(Debug)]
pub struct Forward {
    session: Session,
    connections: usize,
}

/// One of them.
#[derive(Debug)]
pub struct Forwarded {
    forward: Forward,
    error: Reader,
    reader: Reader,
    writer: Writer,
}

#[derive(Debug)]
struct Session {
    connection: tripod_streaming::spdy::Connection,
    // Dropped, it would refuse the server's streams; there are none.
    _incoming: Incoming,
}

// === impl Session ===

impl Session {
    async fn open(address: &Address, protocol: &str) -> Result<Session, Failure> {
        let mut connection = address.connect().await?;
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n",
            address.path, address.host
        );
        connection.write_all(request.as_bytes()).await?;
        upgraded(&mut connection).await?;
        let (connection, _incoming) =
            tripod_streaming::spdy::Connection::new(connection, Role::Client, Config::default());
        Ok(Session { connection, _incoming })
    }

    async fn stream(&self, headers: &[(&str, &str)]) -> Result<Stream, Failure> {
        let headers: Headers = headers.iter().copied().collect();
        let mut stream = self.connection.open(&headers, false).await?;
        stream.replied().await?;
        Ok(stream)
    }
}

/// Reads the answer to the upgrade and nothing of what comes after.
async fn upgraded(connection: &mut TcpStream) -> Result<(), Failure> {
    let mut answer = [0; ANSWER];
    let mut seen = 0;
    loop {
        let length = connection.peek(&mut answer).await?;
        if let Some(end) = answer[..length].windows(4).position(|four| four == b"\r\n\r\n") {
            connection.read_exact(&mut answer[..end + 4]).await?;
            let text = String::from_utf8_lossy(&answer[..end]);
            return if text.starts_with("HTTP/1.1 101 ") { Ok(()) } else { Err(format!("no upgrade: {text}").into()) };
        }
        if length == seen || length == ANSWER {
            return Err("the answer to the upgrade does not end".into());
        }
        seen = length;
    }
}

// === impl Command ===

impl Command {
    /// Comes to an address, which starts the command.
    pub async fn open(address: &Address, stdin: bool) -> Result<Command, Failure> {
        let session = Session::open(address, "v4.channel.k8s.io").await?;
        let status = session.stream(&[("streamType", "error")]).await?;
        let stdin = if stdin { Some(session.stream(&[("streamType", "stdin")]).await?.split()) } else { None };
        let stdout = session.stream(&[("streamType", "stdout")]).await?;
        let stderr = session.stream(&[("streamType", "stderr")]).await?;
        Ok(Command { session, status, stdin, stdout, stderr })
    }

    /// Writes to the command.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let (_, writer) = self.stdin.as_mut().ok_or("the command has no standard input")?;
        Ok(writer.write(bytes).await?)
    }

    /// Reads all output of the command; gives the length of it, and the status.
    pub async fn finish(self) -> Result<(u64, Vec<u8>), Failure> {
        let Command { session, status, stdin: _stdin, stdout, stderr } = self;
        let (mut status, _status) = status.split();
        let (mut stdout, _stdout) = stdout.split();
        let (mut stderr, _stderr) = stderr.split();
        let (length, errors, status) = futures::try_join!(count(&mut stdout), all(&mut stderr), all(&mut status))?;
        drop(session);
        if !errors.is_empty() {
            return Err(format!("the command says: {}", String::from_utf8_lossy(&errors)).into());
        }
        Ok((length, status))
    }
}

async fn count(reader: &mut Reader) -> Result<u64, Failure> {
    let mut length = 0;
    while let Some(bytes) = next(reader).await? {
        length += bytes.len() as u64;
    }
    Ok(length)
}

async fn all(reader: &mut Reader) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    while let Some(bytes) = next(reader).await? {
        text.extend_from_slice(&bytes);
    }
    Ok(text)
}

/// The next bytes. Servers in Go end streams with a reset, which their clients take for an end.
async fn next(reader: &mut Reader) -> Result<Option<Bytes>, Error> {
    match reader.read().await {
        Err(Error::Reset { .. }) => Ok(None),
        result => result,
    }
}

// === impl Forward ===

impl Forward {
    /// Comes to an address for connections to a pod.
    pub async fn open(address: &Address) -> Result<Forward, Failure> {
        Ok(Forward { session: Session::open(address, "portforward.k8s.io").await?, connections: 0 })
    }

    /// Connects to a port.
    pub async fn connect(mut self, port: u16) -> Result<Forwarded, Failure> {
        let (port, request) = (port.to_string(), self.connections.to_string());
        self.connections += 1;
        let headers = |kind| [("streamType", kind), ("port", port.as_str()), ("requestID", request.as_str())];
        let (error, closed) = self.session.stream(&headers("error")).await?.split();
        closed.finish().await?;
        let (reader, writer) = self.session.stream(&headers("data")).await?.split();
        Ok(Forwarded { forward: self, error, reader, writer })
    }
}

// === impl Forwarded ===

impl Forwarded {
    /// Sends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.writer.write(bytes).await?)
    }

    /// How many bytes came.
    pub async fn read(&mut self) -> Result<u64, Failure> {
        if let Some(bytes) = next(&mut self.reader).await? {
            return Ok(bytes.len() as u64);
        }
        let error = all(&mut self.error).await?;
        Err(format!("the connection ended early: {}", String::from_utf8_lossy(&error)).into())
    }

    /// Ends this connection; others of the same session may follow.
    pub async fn disconnect(self) -> Result<Forward, Failure> {
        self.writer.finish().await?;
        Ok(self.forward)
    }

    /// Takes leave.
    pub async fn close(self) -> Result<(), Failure> {
        self.disconnect().await.map(drop)
    }
}

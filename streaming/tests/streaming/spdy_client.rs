//! A client that speaks SPDY, in the manner of kubectl.

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tripod_streaming::{
    Streams,
    spdy::{Config, Connection, Headers, Incoming, Reader, Role, Stream, Writer},
};

use crate::http::{SPDY, connect, request};

/// A command's session.
pub struct Client {
    _connection: Connection,
    _incoming: Incoming,
    pub error: Reader,
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    pub resize: Option<Writer>,
    /// Sides that nobody uses; dropped they would reset their streams.
    _held: (Vec<Reader>, Vec<Writer>),
}

/// Upgrades a connection.
pub async fn upgrade<T>(mut io: T, url: &str, protocols: &[&str]) -> (Connection, Incoming)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut headers = SPDY.to_vec();
    headers.extend(protocols.iter().map(|name| ("X-Stream-Protocol-Version", *name)));
    let answer = request(&mut io, "POST", url, &headers).await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert_eq!((answer.header("connection"), answer.header("upgrade")), (vec!["Upgrade"], vec!["SPDY/3.1"]));
    assert_eq!(answer.header("x-stream-protocol-version"), protocols.first().copied().into_iter().collect::<Vec<_>>());
    Connection::new(io, Role::Client, Config::default())
}

/// Opens a stream and waits for the server's answer.
pub async fn open(connection: &Connection, headers: &[(&str, &str)]) -> Stream {
    let mut all = Headers::new();
    for (name, value) in headers {
        all.insert(name, value);
    }
    let mut stream = connection.open(&all, false).await.unwrap();
    stream.replied().await.unwrap();
    stream
}

impl Client {
    pub async fn start(url: &str, protocol: &str, streams: Streams) -> Self {
        Self::over(connect(url).await, url, protocol, streams).await
    }

    /// The same over a connection that exists.
    pub async fn over<T>(io: T, url: &str, protocol: &str, streams: Streams) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let protocols: Vec<&str> = protocol.split_terminator(',').collect();
        let (connection, incoming) = upgrade(io, url, &protocols).await;
        let resizes = streams.terminal && protocols.first().is_some_and(|name| *name > "v3");
        let mut held = (Vec::new(), Vec::new());
        let error = open(&connection, &[("streamType", "error")]).await.split();
        held.1.push(error.1);
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for (name, wanted, reads) in [
            ("stdin", streams.stdin, false),
            ("stdout", streams.stdout, true),
            ("stderr", streams.stderr, true),
            ("resize", resizes, false),
        ] {
            let halves = if wanted { Some(open(&connection, &[("streamType", name)]).await.split()) } else { None };
            match halves {
                Some((reader, writer)) if reads => {
                    readers.push(Some(reader));
                    held.1.push(writer);
                }
                Some((reader, writer)) => {
                    held.0.push(reader);
                    writers.push(Some(writer));
                }
                None if reads => readers.push(None),
                None => writers.push(None),
            }
        }
        let resize = writers.pop().unwrap();
        let stdin = writers.pop().unwrap();
        let stderr = readers.pop().unwrap();
        let stdout = readers.pop().unwrap();
        Self {
            _connection: connection,
            _incoming: incoming,
            error: error.0,
            stdin,
            stdout,
            stderr,
            resize,
            _held: held,
        }
    }

    /// Sends input.
    pub async fn write(&mut self, data: &[u8]) {
        self.stdin.as_mut().unwrap().write(data).await.unwrap();
    }

    /// Says that there is no more input.
    pub async fn end(&mut self) {
        self.stdin.take().unwrap().finish().await.unwrap();
    }

    pub async fn resize(&mut self, document: &str) {
        self.resize.as_mut().unwrap().write(document.as_bytes()).await.unwrap();
    }

    /// Everything that comes, up to the end: output, errors, status.
    pub async fn finish(mut self) -> (Vec<u8>, Vec<u8>, String) {
        let (stdout, stderr, status) =
            tokio::join!(all(self.stdout.as_mut()), all(self.stderr.as_mut()), all(Some(&mut self.error)));
        (stdout, stderr, String::from_utf8(status).unwrap())
    }
}

/// Everything that comes on a stream.
pub async fn all(reader: Option<&mut Reader>) -> Vec<u8> {
    let mut data = Vec::new();
    if let Some(reader) = reader {
        while let Some(more) = reader.read().await.unwrap() {
            data.extend_from_slice(&more);
        }
    }
    data
}

/// Bytes until they hold a word.
pub async fn until(reader: &mut Reader, word: &str) -> String {
    let mut text = String::new();
    while !text.contains(word) {
        let more: Bytes = reader.read().await.unwrap().unwrap_or_else(|| panic!("no {word} in {text:?}"));
        text += &String::from_utf8_lossy(&more);
    }
    text
}

/// The exit code in a status document.
pub fn exit_code(status: &str) -> i64 {
    let status: Value = serde_json::from_str(status).unwrap();
    if status["status"] == "Success" {
        return 0;
    }
    assert_eq!(status["reason"], "NonZeroExitCode", "{status}");
    assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
    status["details"]["causes"][0]["message"].as_str().unwrap().parse().unwrap()
}

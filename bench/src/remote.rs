//! Commands in containers and connections into pods by way of the streaming server, as kubectl would have them.

use std::io;

use clap::ValueEnum;
use tokio::net::TcpStream;
use tripod_cri_api::v1;

use crate::{Failure, inside, spdy, target::Target, websocket};

/// Bytes in a message, as Go's `io.Copy` would make them.
const CHUNK: usize = 32 << 10;

/// How the client speaks to the streaming server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// SPDY/3.1.
    Spdy,
    /// WebSocket with channels.
    Websocket,
}

/// A command that runs.
#[derive(Debug)]
pub enum Command {
    /// Over SPDY.
    Spdy(Box<spdy::Command>),
    /// Over WebSocket.
    Websocket(websocket::Channels),
}

/// A connection to a port of a pod.
#[derive(Debug)]
pub enum Connection {
    /// Over SPDY.
    Spdy(spdy::Forwarded),
    /// Over WebSocket.
    Websocket(websocket::Channels),
}

/// Where the runtime wants a client to come.
#[derive(Debug)]
pub struct Address {
    /// Host and port.
    pub host: String,
    /// The rest of the URL.
    pub path: String,
}

// === impl Transport ===

impl Transport {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Spdy => "SPDY",
            Transport::Websocket => "WebSocket",
        }
    }
}

// === impl Address ===

impl Address {
    /// For a command in a container.
    pub async fn of_exec(
        target: &Target,
        container: &str,
        command: &[String],
        stdin: bool,
    ) -> Result<Address, Failure> {
        let request = v1::ExecRequest {
            container_id: container.to_owned(),
            cmd: command.to_vec(),
            stdin,
            stdout: true,
            stderr: true,
            tty: false,
        };
        Address::parse(&target.runtime.clone().exec(request).await?.into_inner().url)
    }

    /// For connections to a port of a pod.
    pub async fn of_port(target: &Target, pod: &str, port: u16) -> Result<Address, Failure> {
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: vec![port.into()] };
        Address::parse(&target.runtime.clone().port_forward(request).await?.into_inner().url)
    }

    fn parse(url: &str) -> Result<Address, Failure> {
        let parts = url.strip_prefix("http://").and_then(|rest| Some(rest.split_at(rest.find('/')?)));
        let (host, path) = parts.ok_or_else(|| format!("{url} is no URL of a streaming server without TLS"))?;
        Ok(Address { host: host.to_owned(), path: path.to_owned() })
    }

    /// Comes there.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect(&self.host).await?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }
}

// === impl Command ===

impl Command {
    /// Comes to an address, which starts the command.
    pub async fn open(transport: Transport, address: &Address, stdin: bool) -> Result<Command, Failure> {
        Ok(match transport {
            Transport::Spdy => Command::Spdy(Box::new(spdy::Command::open(address, stdin).await?)),
            Transport::Websocket => Command::Websocket(websocket::Channels::open(address).await?),
        })
    }

    /// Writes so many bytes to the command, but not the end of its input: not every protocol has one, and containerd
    /// loses the last bytes where they are followed by it.
    pub async fn write(&mut self, bytes: u64) -> Result<(), Failure> {
        let chunk = [0; CHUNK];
        for size in chunks(bytes) {
            match self {
                Command::Spdy(command) => command.write(&chunk[..size]).await?,
                Command::Websocket(channels) => channels.feed(websocket::STDIN, &chunk[..size]).await?,
            }
        }
        match self {
            Command::Spdy(_) => Ok(()),
            Command::Websocket(channels) => channels.flush().await,
        }
    }

    /// Reads all output; gives its length once the command has ended well.
    pub async fn finish(self) -> Result<u64, Failure> {
        let (length, status) = match self {
            Command::Spdy(command) => command.finish().await?,
            Command::Websocket(channels) => channels.finish().await?,
        };
        let text = String::from_utf8_lossy(&status);
        let value: serde_json::Value = serde_json::from_slice(&status).map_err(|_| format!("no status: {text}"))?;
        if value["status"] == "Success" { Ok(length) } else { Err(format!("the command failed: {text}").into()) }
    }
}

/// Sizes of the messages in which so many bytes are sent.
fn chunks(bytes: u64) -> impl Iterator<Item = usize> {
    let chunk = CHUNK as u64;
    let rest = (bytes % chunk) as usize;
    (0..bytes / chunk).map(|_| CHUNK).chain((rest > 0).then_some(rest))
}

// === impl Connection ===

impl Connection {
    /// Comes to an address and connects to the port.
    pub async fn open(transport: Transport, address: &Address, port: u16) -> Result<Connection, Failure> {
        Ok(match transport {
            Transport::Spdy => Connection::Spdy(spdy::Forward::open(address).await?.connect(port).await?),
            Transport::Websocket => Connection::Websocket(websocket::Channels::forward(address).await?),
        })
    }

    /// Sends bytes and waits for the first echo.
    pub async fn ping(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.send(bytes).await?;
        self.flush().await?;
        self.receive().await.map(drop)
    }

    /// Lets the pod send so many bytes.
    pub async fn read(&mut self, bytes: u64) -> Result<(), Failure> {
        self.send(&order(inside::SEND, bytes)).await?;
        self.flush().await?;
        let mut length = 0;
        while length < bytes {
            length += self.receive().await?;
        }
        Ok(())
    }

    /// Sends the pod so many bytes, and waits until it has them.
    pub async fn write(&mut self, bytes: u64) -> Result<(), Failure> {
        self.send(&order(inside::TAKE, bytes)).await?;
        let chunk = [0; CHUNK];
        for size in chunks(bytes) {
            self.send(&chunk[..size]).await?;
        }
        self.flush().await?;
        self.receive().await.map(drop)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Connection::Spdy(connection) => connection.write(bytes).await,
            Connection::Websocket(channels) => channels.feed(websocket::DATA, bytes).await,
        }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Connection::Spdy(_) => Ok(()),
            Connection::Websocket(channels) => channels.flush().await,
        }
    }

    /// How many bytes came.
    async fn receive(&mut self) -> Result<u64, Failure> {
        match self {
            Connection::Spdy(connection) => connection.read().await,
            Connection::Websocket(channels) => channels.receive().await,
        }
    }

    /// Takes leave.
    pub async fn close(self) -> Result<(), Failure> {
        match self {
            Connection::Spdy(connection) => connection.close().await,
            Connection::Websocket(channels) => channels.close().await,
        }
    }
}

fn order(what: u8, bytes: u64) -> Vec<u8> {
    [&[what][..], &bytes.to_le_bytes()].concat()
}

//! Commands in containers and connections into pods by way of the streaming server, as kubectl would have them.

use std::io;

use clap::ValueEnum;
use tokio::net::TcpStream;
use tripod_cri_api::v1;

use crate::{Failure, inside, target::Target, websocket::Channels};

/// Bytes in a message, as Go's `io.Copy` would make them.
const CHUNK: usize = 32 << 10;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STATUS: u8 = 3;

/// How the client speaks to the streaming server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// WebSocket with channels.
    Websocket,
}

/// A command that runs.
#[derive(Debug)]
pub struct Command {
    channels: Channels,
}

/// A connection to a port of a pod.
#[derive(Debug)]
pub struct Connection {
    channels: Channels,
}

/// Where the runtime wants a client to come.
#[derive(Debug)]
pub struct Address {
    host: String,
    path: String,
}

// === impl Transport ===

impl Transport {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
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

    async fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect(&self.host).await?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }
}

// === impl Command ===

impl Command {
    /// Comes to an address, which starts the command.
    pub async fn open(_transport: Transport, address: &Address) -> Result<Command, Failure> {
        let connection = address.connect().await?;
        let channels = Channels::open(connection, &address.host, &address.path).await?;
        Ok(Command { channels })
    }

    /// Writes so many bytes to the command, then the end.
    pub async fn write(&mut self, bytes: u64) -> Result<(), Failure> {
        write(&mut self.channels, bytes).await?;
        self.channels.close_channel(STDIN).await
    }

    /// Reads all output; gives its length once the command has ended well.
    pub async fn finish(mut self) -> Result<u64, Failure> {
        let mut length = 0;
        let mut status = Vec::new();
        while let Some((channel, bytes)) = self.channels.next().await? {
            match channel {
                STDOUT => length += bytes.len() as u64,
                STATUS => status.extend_from_slice(&bytes),
                _ if bytes.is_empty() => {}
                _ => return Err(format!("the command says: {}", String::from_utf8_lossy(&bytes)).into()),
            }
        }
        succeeded(&status)?;
        Ok(length)
    }
}

/// Whether the last word about a command is that it ended well.
fn succeeded(status: &[u8]) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(status);
    let value: serde_json::Value = serde_json::from_slice(status).map_err(|_| format!("no status: {text}"))?;
    if value["status"] == "Success" { Ok(()) } else { Err(format!("the command failed: {text}").into()) }
}

// === impl Connection ===

impl Connection {
    /// Comes to an address and connects to the port.
    pub async fn open(_transport: Transport, address: &Address) -> Result<Connection, Failure> {
        let connection = address.connect().await?;
        let mut channels = Channels::open(connection, &address.host, &address.path).await?;
        // The channels of data and errors each begin with the number of the port.
        for _ in 0..2 {
            channels.next().await?.ok_or("the server ended the connection")?;
        }
        Ok(Connection { channels })
    }

    /// Sends a byte and waits for its echo.
    pub async fn ping(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.channels.feed(STDIN, bytes).await?;
        self.channels.flush().await?;
        self.receive().await.map(drop)
    }

    /// Lets the pod send so many bytes.
    pub async fn read(&mut self, bytes: u64) -> Result<(), Failure> {
        self.channels.feed(STDIN, &order(inside::SEND, bytes)).await?;
        self.channels.flush().await?;
        let mut length = 0;
        while length < bytes {
            length += self.receive().await?;
        }
        Ok(())
    }

    /// Sends the pod so many bytes, and waits until it has them.
    pub async fn write(&mut self, bytes: u64) -> Result<(), Failure> {
        self.channels.feed(STDIN, &order(inside::TAKE, bytes)).await?;
        write(&mut self.channels, bytes).await?;
        self.receive().await.map(drop)
    }

    /// How many bytes came.
    async fn receive(&mut self) -> Result<u64, Failure> {
        match self.channels.next().await?.ok_or("the connection ended early")? {
            (0, bytes) => Ok(bytes.len() as u64),
            (_, error) => Err(format!("port-forward says: {}", String::from_utf8_lossy(&error)).into()),
        }
    }

    /// Takes leave.
    pub async fn close(self) -> Result<(), Failure> {
        self.channels.close().await
    }
}

fn order(what: u8, bytes: u64) -> Vec<u8> {
    [&[what][..], &bytes.to_le_bytes()].concat()
}

async fn write(channels: &mut Channels, bytes: u64) -> Result<(), Failure> {
    let chunk = [0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(CHUNK as u64) as usize;
        channels.feed(STDIN, &chunk[..size]).await?;
        left -= size as u64;
    }
    channels.flush().await
}

//! The client's side of Kubernetes' channels over a WebSocket: each message begins with the number of its channel.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Bytes, Message, client::ClientRequestBuilder, http::Uri, protocol::WebSocketConfig},
};

use crate::{Failure, remote::Address};

/// Channel of a command's standard input.
pub const STDIN: u8 = 0;

/// Channel of what goes to and from the first forwarded port.
pub const DATA: u8 = 0;

const STDOUT: u8 = 1;
const STATUS: u8 = 3;

const NEWEST: &str = "v5.channel.k8s.io";
const OLDER: &str = "v4.channel.k8s.io";

/// A connection with its channels.
#[derive(Debug)]
pub struct Channels {
    socket: Box<WebSocketStream<TcpStream>>,
}

// === impl Channels ===

impl Channels {
    /// Comes to an address with the newest protocol that the server speaks.
    pub async fn open(address: &Address) -> Result<Channels, Failure> {
        let connection = address.connect().await?;
        let uri: Uri = format!("ws://{}{}", address.host, address.path).parse()?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(NEWEST).with_sub_protocol(OLDER);
        let limits = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = client_async_with_config(request, connection, Some(limits)).await?;
        Ok(Channels { socket: Box::new(socket) })
    }

    /// Comes to the address of a port of a pod.
    pub async fn forward(address: &Address) -> Result<Channels, Failure> {
        let mut channels = Channels::open(address).await?;
        // The channels of data and errors each begin with the number of the port.
        for _ in 0..2 {
            channels.next().await?.ok_or("the server ended the connection")?;
        }
        Ok(channels)
    }

    /// Reads all output of a command; gives the length of it, and the status.
    pub async fn finish(mut self) -> Result<(u64, Vec<u8>), Failure> {
        let mut length = 0;
        let mut status = Vec::new();
        while let Some((channel, bytes)) = self.next().await? {
            match channel {
                STDOUT => length += bytes.len() as u64,
                STATUS => status.extend_from_slice(&bytes),
                _ if bytes.is_empty() => {}
                _ => return Err(format!("the command says: {}", String::from_utf8_lossy(&bytes)).into()),
            }
        }
        Ok((length, status))
    }

    /// How many bytes came from the forwarded port.
    pub async fn receive(&mut self) -> Result<u64, Failure> {
        match self.next().await?.ok_or("the connection ended early")? {
            (DATA, bytes) => Ok(bytes.len() as u64),
            (_, error) => Err(format!("port-forward says: {}", String::from_utf8_lossy(&error)).into()),
        }
    }

    /// Sends bytes some time soon; [`Channels::flush`] sends them now.
    pub async fn feed(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Failure> {
        let mut message = Vec::with_capacity(1 + bytes.len());
        message.push(channel);
        message.extend_from_slice(bytes);
        Ok(self.socket.feed(Message::Binary(message.into())).await?)
    }

    /// Sends what has been fed.
    pub async fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.socket.flush().await?)
    }

    /// The next bytes and their channel; `None` at the end. Both sides may send nothing on a channel.
    async fn next(&mut self) -> Result<Option<(u8, Bytes)>, Failure> {
        loop {
            match self.socket.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(Message::Binary(mut message))) if !message.is_empty() => {
                    let channel = message[0];
                    return Ok(Some((channel, message.split_off(1))));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Takes leave.
    pub async fn close(mut self) -> Result<(), Failure> {
        Ok(self.socket.close().await?)
    }
}

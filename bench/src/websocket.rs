//! The client's side of Kubernetes' channels over a WebSocket: each message begins with the number of its channel.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Bytes, Message, client::ClientRequestBuilder, http::Uri, http::header::SEC_WEBSOCKET_PROTOCOL,
        protocol::WebSocketConfig,
    },
};

use crate::Failure;

const NEWEST: &str = "v5.channel.k8s.io";
const OLDER: &str = "v4.channel.k8s.io";

/// Since version 5 of the protocol a message on this channel closes the channel that it names.
const CLOSE: u8 = 255;

/// A connection with its channels.
#[derive(Debug)]
pub struct Channels {
    socket: WebSocketStream<TcpStream>,
    /// Whether single channels can be closed.
    closes: bool,
}

// === impl Channels ===

impl Channels {
    /// Opens `path` of a server with the newest protocol that it speaks.
    pub async fn open(connection: TcpStream, host: &str, path: &str) -> Result<Channels, Failure> {
        let uri: Uri = format!("ws://{host}{path}").parse()?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(NEWEST).with_sub_protocol(OLDER);
        let limits = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, response) = client_async_with_config(request, connection, Some(limits)).await?;
        let closes = response.headers().get(SEC_WEBSOCKET_PROTOCOL).is_some_and(|chosen| chosen == NEWEST);
        Ok(Channels { socket, closes })
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

    /// Closes one channel, as end of file of standard input, where that can be said.
    pub async fn close_channel(&mut self, channel: u8) -> Result<(), Failure> {
        if !self.closes {
            return Ok(());
        }
        Ok(self.socket.send(Message::Binary(vec![CLOSE, channel].into())).await?)
    }

    /// The next bytes and their channel; `None` at the end. Both sides may send nothing on a channel.
    pub async fn next(&mut self) -> Result<Option<(u8, Bytes)>, Failure> {
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
        Ok(self.socket.close(None).await?)
    }
}

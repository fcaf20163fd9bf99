//! Channels over a WebSocket: each message begins with the number of its channel.

mod tunnel;

use std::sync::Arc;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use bytes::{Buf, Bytes};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{sync::Mutex, time::sleep};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::CapacityError,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
pub(crate) use tunnel::Tunnel;

use crate::{control::PING, fault::Fault, stream::Stream, upgrade::Encoding};

/// Channels of a command.
pub(crate) mod channel {
    pub(crate) const STDIN: u8 = 0;
    pub(crate) const STDOUT: u8 = 1;
    pub(crate) const STDERR: u8 = 2;
    pub(crate) const STATUS: u8 = 3;
    pub(crate) const RESIZE: u8 = 4;
}

/// Size of a message, at most; what Go's clients and servers have as their limit.
const MESSAGE: usize = 32 << 20;
/// Bytes that are read at a time.
const READ: usize = 64 << 10;
/// In place of a channel: the next byte names the channel that the client has ended.
const END: u8 = 255;

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Bytes for a channel.
    Data(u8, Bytes),
    /// No more bytes for a channel.
    End(u8),
    /// The client closes the connection.
    Closed,
}

/// Sends to the client; clones send over the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    sink: Arc<Mutex<SplitSink<WebSocketStream<Stream>, Message>>>,
    encoding: Encoding,
}

/// Hears the client.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: SplitStream<WebSocketStream<Stream>>,
    encoding: Encoding,
    ends: bool,
}

/// The server's side of a WebSocket, after the handshake.
pub(crate) async fn server(stream: Stream) -> WebSocketStream<Stream> {
    let config =
        WebSocketConfig::default().read_buffer_size(READ).max_message_size(Some(MESSAGE)).max_frame_size(Some(MESSAGE));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

/// Channels on a connection; `ends` when the client can end a channel.
pub(crate) async fn channels(stream: Stream, encoding: Encoding, ends: bool) -> (Sender, Receiver) {
    let (sink, stream) = server(stream).await.split();
    (Sender { sink: Arc::new(Mutex::new(sink)), encoding }, Receiver { stream, encoding, ends })
}

impl Sender {
    /// Sends one message: the number of the channel, then data. The buffer comes back for the next.
    pub(crate) async fn send(&self, message: &mut Vec<u8>) -> Result<(), tungstenite::Error> {
        match self.encoding {
            Encoding::Binary => {
                let bytes = Bytes::from(std::mem::take(message));
                let sent = self.sink.lock().await.send(Message::Binary(bytes.clone())).await;
                *message = bytes.into();
                sent
            }
            Encoding::Base64 => {
                let mut text = String::with_capacity(1 + message.len().div_ceil(3) * 4);
                text.push(char::from(b'0' + message.first().copied().unwrap_or_default()));
                STANDARD.encode_string(message.get(1..).unwrap_or_default(), &mut text);
                self.sink.lock().await.send(Message::Text(text.into())).await
            }
        }
    }

    /// Begins to close the connection; nothing can be sent afterwards.
    pub(crate) async fn close(&self, code: CloseCode, reason: &str) {
        // A control message carries 125 bytes, two of which are the code.
        let reason = &reason[..reason.floor_char_boundary(123)];
        let frame = CloseFrame { code, reason: reason.into() };
        // The client may have closed the connection itself.
        let _ = self.sink.lock().await.send(Message::Close(Some(frame))).await;
    }

    /// Sends pings for ever.
    pub(crate) async fn keep_alive(self) {
        loop {
            sleep(PING).await;
            // What breaks the connection is heard by the receiver.
            let _ = self.sink.lock().await.send(Message::Ping(Bytes::new())).await;
        }
    }
}

impl Receiver {
    /// The next thing that the client says. Pings are answered on the way.
    pub(crate) async fn next(&mut self) -> Result<Input, Fault> {
        loop {
            let message = match self.stream.next().await {
                // The answer to a close goes out while the end is awaited.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_) | Message::Close(_))) => continue,
                Some(Ok(message)) => message.into_data(),
                Some(Err(error)) => return fault(&error),
                None => return Ok(Input::Closed),
            };
            if let Some(input) = self.read(message)? {
                return Ok(input);
            }
        }
    }

    fn read(&self, mut message: Bytes) -> Result<Option<Input>, Fault> {
        let Some(first) = message.first().copied() else { return Ok(None) };
        message.advance(1);
        if self.ends && first == END {
            let &[channel] = &message[..] else {
                return Err(Fault::protocol("the end of a channel is said in two bytes"));
            };
            return Ok(Some(Input::End(self.channel(channel))));
        }
        let data = match self.encoding {
            Encoding::Binary => message,
            Encoding::Base64 => match BASE64.decode(&message) {
                Ok(data) => data.into(),
                Err(error) => return Err(Fault::data(format!("a message is not in base64: {error}"))),
            },
        };
        Ok(Some(Input::Data(self.channel(first), data)))
    }

    /// Channels are digits where all is text.
    fn channel(&self, byte: u8) -> u8 {
        match self.encoding {
            Encoding::Base64 if byte.is_ascii_digit() => byte - b'0',
            _ => byte,
        }
    }
}

/// What an error of the connection means.
fn fault(error: &tungstenite::Error) -> Result<Input, Fault> {
    use tungstenite::{Error, error::ProtocolError};
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Err(Fault::size(format!("a message is longer than {} MiB", MESSAGE >> 20)))
        }
        Error::Utf8(_) => Err(Fault::data("a text message is not in UTF-8".to_owned())),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ok(Input::Closed),
        error => Err(Fault::protocol(error.to_string())),
    }
}

//! A client that speaks WebSocket.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Duration, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::http::connect;

/// What a session was told, by channel, until the server closed it.
#[derive(Debug, Default)]
pub struct Told {
    pub channels: [Vec<u8>; 10],
    pub close: Option<CloseFrame>,
}

impl Told {
    pub fn status(&self) -> String {
        String::from_utf8(self.channels[3].clone()).unwrap()
    }

    pub fn code(&self) -> u16 {
        self.close.as_ref().expect("closed without a word").code.into()
    }
}

pub struct Client<T> {
    pub socket: WebSocketStream<T>,
    base64: bool,
}

impl Client<TcpStream> {
    pub async fn start(url: &str, protocol: &str) -> Self {
        Self::over(connect(url).await, url, protocol).await
    }
}

/// Upgrades a connection.
pub async fn upgrade<T>(io: T, url: &str, protocol: &str) -> WebSocketStream<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let url = url.replacen("http", "ws", 1);
    let mut request = url.as_str().into_client_request().unwrap();
    if !protocol.is_empty() {
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    }
    let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    client_async_with_config(request, io, Some(config)).await.unwrap().0
}

impl<T> Client<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    /// The same over a connection that exists.
    pub async fn over(io: T, url: &str, protocol: &str) -> Self {
        Self { socket: upgrade(io, url, protocol).await, base64: protocol.contains("base64") }
    }

    pub async fn send(&mut self, channel: u8, data: &[u8]) {
        let message = if self.base64 {
            Message::text(format!("{channel}{}", STANDARD.encode(data)))
        } else {
            Message::binary([&[channel], data].concat())
        };
        self.socket.send(message).await.unwrap();
    }

    /// Says that no more comes on a channel.
    pub async fn end(&mut self, channel: u8) {
        self.socket.send(Message::binary(vec![255, channel])).await.unwrap();
    }

    /// The next message of a channel.
    pub async fn next(&mut self) -> Result<(u8, Vec<u8>), Option<CloseFrame>> {
        loop {
            let message = timeout(Duration::from_secs(20), self.socket.next()).await.expect("silence");
            match message {
                None => return Err(None),
                Some(Ok(Message::Close(close))) => {
                    // The answer goes out while the end is awaited.
                    while let Some(Ok(_)) = self.socket.next().await {}
                    return Err(close);
                }
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    assert_eq!(message.is_text(), self.base64);
                    let data = message.into_data();
                    return Ok(if self.base64 {
                        (data[0] - b'0', STANDARD.decode(&data[1..]).unwrap())
                    } else {
                        (data[0], data[1..].to_vec())
                    });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }

    /// Bytes of a channel until they hold a word.
    pub async fn until(&mut self, channel: u8, word: &str) -> String {
        let mut text = String::new();
        while !text.contains(word) {
            let (from, data) = self.next().await.unwrap_or_else(|close| panic!("no {word} in {text:?}: {close:?}"));
            assert_eq!(from, channel, "{data:?}");
            text += &String::from_utf8_lossy(&data);
        }
        text
    }

    /// Everything up to the end.
    pub async fn finish(mut self) -> Told {
        let mut told = Told::default();
        loop {
            match self.next().await {
                Ok((channel, data)) => told.channels[usize::from(channel)].extend_from_slice(&data),
                Err(close) => {
                    told.close = close;
                    return told;
                }
            }
        }
    }
}

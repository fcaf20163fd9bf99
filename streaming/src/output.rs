//! One direction of a stream to the client, whatever carries it.

use crate::{chunk::Chunk, spdy, websocket};

/// A stream to the client.
#[derive(Debug)]
pub(crate) struct Output {
    to: To,
    /// What is sent next, after what its carrier puts before it.
    buffer: Vec<u8>,
    chunk: Chunk,
}

#[derive(Debug)]
enum To {
    Spdy(spdy::Writer),
    WebSocket {
        sender: websocket::Sender,
        channel: u8,
    },
    /// The client has left or does not want it.
    Nowhere,
}

impl Output {
    pub(crate) fn spdy(writer: spdy::Writer) -> Self {
        Self { to: To::Spdy(writer), buffer: Vec::new(), chunk: Chunk::new() }
    }

    pub(crate) fn websocket(sender: websocket::Sender, channel: u8) -> Self {
        Self { to: To::WebSocket { sender, channel }, buffer: Vec::new(), chunk: Chunk::new() }
    }

    pub(crate) fn nowhere() -> Self {
        Self { to: To::Nowhere, buffer: Vec::new(), chunk: Chunk::new() }
    }

    /// An empty buffer: what is appended to it is sent next. It has room for a chunk.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.clear();
        if let To::WebSocket { channel, .. } = &self.to {
            self.buffer.push(*channel);
        }
        self.buffer.reserve(self.chunk.size());
        &mut self.buffer
    }

    /// So much was read into the buffer; says whether it has more room from now on.
    pub(crate) fn took(&mut self, length: usize) -> bool {
        self.chunk.took(length)
    }

    /// Sends what was appended to the buffer. A client that hears no more gets no more.
    pub(crate) async fn send(&mut self) {
        let sent = match &mut self.to {
            To::Spdy(writer) => writer.write(&self.buffer).await.is_ok(),
            To::WebSocket { sender, .. } => sender.send(&mut self.buffer).await.is_ok(),
            To::Nowhere => return,
        };
        if !sent {
            self.to = To::Nowhere;
        }
    }

    /// Sends some bytes.
    pub(crate) async fn write(&mut self, data: &[u8]) {
        self.buffer().extend_from_slice(data);
        self.send().await;
    }

    /// Says that nothing more comes, where the carrier can say it.
    pub(crate) async fn finish(&mut self) {
        if let To::Spdy(writer) = std::mem::replace(&mut self.to, To::Nowhere) {
            // A client that is not there any more needs not know.
            let _ = writer.finish().await;
        }
    }
}

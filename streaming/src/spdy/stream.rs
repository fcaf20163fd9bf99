//! Streams of a connection, whole or as two halves.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;

use super::{error::Error, frame::Status, headers::Headers, shared::Alive};

/// A stream. Dropped before both sides are finished, it is reset with [`Status::CANCEL`].
#[derive(Debug)]
pub struct Stream {
    headers: Headers,
    reader: Reader,
    writer: Writer,
}

/// What the peer sends on a stream.
///
/// Dropped early, it makes the connection throw away what still comes; the writer is not affected. Once the writer is
/// finished, too, the stream is reset with [`Status::CANCEL`].
#[derive(Debug)]
pub struct Reader {
    alive: Arc<Alive>,
    stream: u32,
}

/// What this side sends on a stream. Dropped before [`Writer::finish`], it resets the stream with [`Status::CANCEL`].
#[derive(Debug)]
pub struct Writer {
    alive: Arc<Alive>,
    stream: u32,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(alive: Arc<Alive>, stream: u32, headers: Headers) -> Self {
        Self { headers, reader: Reader { alive: Arc::clone(&alive), stream }, writer: Writer { alive, stream } }
    }

    /// Its id: odd if the client opened it.
    pub fn id(&self) -> u32 {
        self.reader.stream
    }

    /// The headers with which it was opened.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Accepts a stream that the peer opened; with `fin` nothing is sent on it. Writing to a stream without a reply
    /// sends an empty one first.
    pub async fn reply(&self, headers: &Headers, fin: bool) -> Result<(), Error> {
        self.reader.alive.shared().send_reply(self.id(), headers, fin).await
    }

    /// Waits for the peer's reply to a stream that this side opened. There is no limit here: the caller sets one.
    pub async fn replied(&mut self) -> Result<Headers, Error> {
        let stream = self.id();
        poll_fn(|cx| self.reader.alive.shared().with(|state| state.poll_reply(stream, cx))).await
    }

    /// Both halves, to be used at the same time.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Ends the stream at once and tells the peer why.
    pub fn reset(self, status: Status) {
        self.reader.reset(status);
    }
}

// === impl Reader ===

impl Reader {
    /// The stream's id.
    pub fn id(&self) -> u32 {
        self.stream
    }

    /// The next bytes, in pieces as they come; `None` once the peer has finished. A dropped call loses nothing.
    ///
    /// What came before a reset by the peer, or before the end of the connection, is given out before the error.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.alive.shared().with(|state| state.poll_read(self.stream, cx))).await
    }

    /// Ends the stream at once, both ways, and tells the peer why.
    pub fn reset(self, status: Status) {
        self.alive.shared().with(|state| state.reset(self.stream, status));
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.alive.shared().with(|state| state.drop_reader(self.stream));
    }
}

// === impl Writer ===

impl Writer {
    /// The stream's id.
    pub fn id(&self) -> u32 {
        self.stream
    }

    /// Sends all of `data`, once the peer's window and the byte stream take it. If the call is dropped, an unknown
    /// part of it was sent, in whole frames.
    pub async fn write(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let sent = self.alive.shared().send_data(self.stream, data, false).await?;
            data = &data[sent..];
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes; the peer may still send.
    pub async fn finish(self) -> Result<(), Error> {
        self.alive.shared().send_data(self.stream, &[], true).await.map(drop)
    }

    /// Ends the stream at once, both ways, and tells the peer why.
    pub fn reset(self, status: Status) {
        self.alive.shared().with(|state| state.reset(self.stream, status));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.alive.shared().with(|state| state.drop_writer(self.stream));
    }
}

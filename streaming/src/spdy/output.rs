//! The writing side: whoever has something to send locks it, sends, and leaves whole frames behind even if its future
//! is dropped in the middle.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{io::AsyncWrite, sync::MutexGuard};

use super::{
    error::{Ended, Error},
    frame::{DATA_HEADER, Frame, data_header},
    headers::Headers,
    shared::Shared,
    state::Turn,
    zlib::Deflater,
};

/// The most that one frame carries: streams take turns frame by frame.
const MAX_PAYLOAD: usize = 256 << 10;
/// Answers are added to what waits to be sent only below this size, so that it has a bound.
const PENDING: usize = 64 << 10;

pub(super) struct Output {
    /// `None` once the connection has ended.
    io: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    deflater: Deflater,
    /// What must be sent before anything else: whole frames, or the rest of one.
    pending: BytesMut,
    /// Something was written that may still be in a buffer below.
    dirty: bool,
}

/// A turn at the writing side.
struct Sending<'a> {
    output: MutexGuard<'a, Output>,
    shared: &'a Shared,
    /// What follows after `Output::pending`.
    payload: &'a [u8],
    /// The DATA frame that is being sent; its header is the end of `Output::pending`.
    data: Option<Data>,
}

#[derive(Clone, Copy)]
struct Data {
    stream: u32,
    length: usize,
    fin: bool,
}

// === impl Output ===

impl Output {
    pub(super) fn new(io: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self { io: Some(io), deflater: Deflater::new(), pending: BytesMut::new(), dirty: false }
    }

    /// Closes the byte stream's writing side, for good.
    pub(super) fn take(&mut self) -> Option<Box<dyn AsyncWrite + Send + Unpin>> {
        self.io.take()
    }

    /// Adds the frames that wait in the state.
    pub(super) fn add_queue(&mut self, shared: &Shared) {
        if self.pending.len() < PENDING {
            let Self { deflater, pending, .. } = self;
            shared.with(|state| {
                state.take_queue(|frame| {
                    // None of the frames in the queue has headers, so none can fail.
                    let _ = frame.encode(deflater, pending);
                });
            });
        }
    }

    pub(super) fn poll_send(&mut self, payload: &mut &[u8], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = self.io.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        while !(self.pending.is_empty() && payload.is_empty()) {
            let slices = [IoSlice::new(&self.pending), IoSlice::new(payload)];
            let slices = if self.pending.is_empty() { &slices[1..] } else { &slices };
            let sent = ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.dirty = true;
            let from_pending = sent.min(self.pending.len());
            self.pending.advance(from_pending);
            *payload = &payload[sent - from_pending..];
        }
        if self.dirty {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    async fn sending(&self) -> Result<Sending<'_>, Error> {
        let output = match self.output.try_lock() {
            Ok(output) => output,
            Err(_) => self.until_over(self.output.lock()).await?,
        };
        let mut sending = Sending { output, shared: self, payload: &[], data: None };
        sending.output.add_queue(self);
        Ok(sending)
    }

    /// Sends what waits to be sent.
    pub(super) async fn send_queue(&self) -> Result<(), Error> {
        self.sending().await?.run().await
    }

    /// Sends the frame that `make` decides on when it is this sender's turn.
    pub(super) async fn send_frame<R>(&self, make: impl FnOnce() -> Result<(Frame, R), Error>) -> Result<R, Error> {
        let mut sending = self.sending().await?;
        sending.run().await?;
        let (frame, result) = make()?;
        let Output { deflater, pending, .. } = &mut *sending.output;
        frame.encode(deflater, pending)?;
        sending.run().await?;
        Ok(result)
    }

    /// Sends one DATA frame with as much of `payload` as the windows allow, and says how much that was.
    pub(super) async fn send_data(&self, stream: u32, payload: &[u8], fin: bool) -> Result<usize, Error> {
        let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
        loop {
            poll_fn(|cx| self.with(|state| state.poll_window(stream, payload.len(), cx))).await?;
            let mut sending = self.sending().await?;
            match self.with(|state| state.take_window(stream, payload.len(), fin))? {
                Turn::Reply => {
                    drop(sending);
                    self.send_reply(stream, &Headers::new(), false).await?;
                }
                Turn::Send(0) if !payload.is_empty() => {}
                Turn::Send(length) => {
                    sending.output.pending.extend_from_slice(&data_header(stream, fin, length));
                    sending.payload = &payload[..length];
                    sending.data = Some(Data { stream, length, fin });
                    sending.run().await?;
                    return Ok(length);
                }
            }
        }
    }

    /// Sends the reply to a stream of the peer.
    pub(super) async fn send_reply(&self, stream: u32, headers: &Headers, fin: bool) -> Result<(), Error> {
        headers.encode()?;
        self.send_frame(|| {
            self.with(|state| state.reply(stream, fin))?;
            Ok((Frame::SynReply { stream, fin, headers: headers.clone() }, ()))
        })
        .await
    }
}

// === impl Sending ===

impl Sending<'_> {
    /// Sends everything and flushes.
    async fn run(&mut self) -> Result<(), Error> {
        let Self { output, payload, shared, .. } = self;
        let result = shared.until_over(poll_fn(|cx| output.poll_send(payload, cx))).await?;
        result.map_err(|error| {
            let ended = Ended::from(error);
            shared.with(|state| state.signals.end.get_or_insert(ended.clone()).clone());
            ended.into()
        })
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let output = &mut *self.output;
        match self.data {
            // The header is still whole, so nothing of this frame is on its way: it never was.
            Some(data) if output.pending.len() >= DATA_HEADER => {
                let before = output.pending.len() - DATA_HEADER;
                output.pending.truncate(before);
                self.shared.with(|state| state.untake_window(data.stream, data.length, data.fin));
            }
            _ => output.pending.extend_from_slice(self.payload),
        }
        if !output.pending.is_empty() || output.dirty {
            self.shared.flush.notify_one();
        }
    }
}

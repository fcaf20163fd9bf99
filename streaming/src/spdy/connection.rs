//! Connections: handles to open streams with, and the streams that the peer opens.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{
    config::{Config, Role},
    driver::Driver,
    error::{Ended, Error},
    frame::{Frame, GoAwayStatus},
    headers::Headers,
    output::Output,
    shared::{Alive, Shared},
    state::State,
    stream::Stream,
};

/// A handle; clones are of the same connection. When the last handle, the [`Incoming`] and all streams are dropped,
/// the connection says goodbye and closes.
#[derive(Debug, Clone)]
pub struct Connection {
    alive: Arc<Alive>,
}

/// Streams that the peer opens. Once it is dropped, they are refused.
#[derive(Debug)]
pub struct Incoming {
    receiver: mpsc::UnboundedReceiver<Stream>,
    // Waiting for streams is a use of the connection.
    _alive: Arc<Alive>,
}

// === impl Connection ===

impl Connection {
    /// Speaks SPDY/3.1 over `io`, in a task of its own that ends with the connection.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time.
    pub fn new<T>(io: T, role: Role, config: Config) -> (Self, Incoming)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let shared = Arc::new(Shared::new(role, &config, Output::new(Box::new(write))));
        let alive = Arc::new(Alive::new(shared));
        // The number of streams that wait in it is limited by the number that the peer may have.
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Driver::new(&alive, read, role, config, sender).run());
        (Self { alive: Arc::clone(&alive) }, Incoming { receiver, _alive: alive })
    }

    /// Opens a stream; with `fin` nothing is sent on it. Does not wait for the peer's reply.
    pub async fn open(&self, headers: &Headers, fin: bool) -> Result<Stream, Error> {
        headers.encode()?;
        let shared = self.alive.shared();
        shared
            .send_frame(|| {
                let stream = shared.with(|state| state.open(fin))?;
                let handle = Stream::new(Arc::clone(&self.alive), stream, headers.clone());
                let headers = headers.clone();
                let frame =
                    Frame::SynStream { stream, associated: 0, priority: 0, fin, unidirectional: false, headers };
                Ok((frame, handle))
            })
            .await
    }

    /// Asks the peer for a sign of life and waits for it; the caller limits the time.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let answer = self.alive.shared().with(State::ping)?;
        answer.await.map_err(|_| self.alive.shared().ended().into())
    }

    /// Asks the peer to open no more streams. The connection ends with the last stream. Peers built on Go's spdystream
    /// stop reading at once: for them this is the end.
    pub async fn go_away(&self, status: GoAwayStatus) -> Result<(), Error> {
        self.alive.shared().with(|state| state.go_away(status));
        match self.alive.shared().send_queue().await {
            // Without streams this was the end, and the goodbye is part of it.
            Err(Error::Ended(Ended::GoAway(_))) => Ok(()),
            result => result,
        }
    }

    /// Resolves with the reason once the connection has ended. It does not keep the connection alive.
    pub fn closed(&self) -> impl Future<Output = Ended> + Send + 'static {
        let shared = Arc::clone(self.alive.shared());
        async move {
            loop {
                let over = shared.over.notified();
                if let Some(ended) = shared.with(|state| state.ended().cloned()) {
                    return ended;
                }
                over.await;
            }
        }
    }
}

// === impl Incoming ===

impl Incoming {
    /// The next stream; `None` once the connection has ended. A dropped call loses nothing.
    pub async fn next(&mut self) -> Option<Stream> {
        self.receiver.recv().await
    }
}

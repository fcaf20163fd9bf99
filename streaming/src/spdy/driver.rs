//! The task of a connection: reads frames, sends what nobody else sends, and ends everything.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time,
};

use super::{
    config::{Config, Role},
    decode::{Decoder, Event},
    error::Ended,
    frame::{Frame, GoAwayStatus, Status},
    shared::{Alive, Shared},
    state::State,
    stream::Stream,
    zlib::Deflater,
};
use crate::BoxFuture;

/// The read buffer of an idle connection, and of a busy one.
const SMALLEST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 256 << 10;

pub(super) struct Driver<R> {
    shared: Arc<Shared>,
    io: R,
    decoder: Decoder,
    buffer: BytesMut,
    /// How much to ask for: follows what comes.
    read_size: usize,
    /// The largest buffer that there was: a small piece must not keep it from being freed.
    block: usize,
    /// `None` once the connection has ended.
    incoming: Option<mpsc::UnboundedSender<Stream>>,
    alive: Weak<Alive>,
    role: Role,
    gone: Option<BoxFuture<()>>,
    grace: Duration,
    linger: Duration,
}

impl<R: AsyncRead + Unpin> Driver<R> {
    pub(super) fn new(
        alive: &Arc<Alive>,
        io: R,
        role: Role,
        config: Config,
        incoming: mpsc::UnboundedSender<Stream>,
    ) -> Self {
        Self {
            shared: Arc::clone(alive.shared()),
            io,
            decoder: Decoder::new(config.limits),
            buffer: BytesMut::new(),
            read_size: SMALLEST_READ,
            block: 0,
            incoming: Some(incoming),
            alive: Arc::downgrade(alive),
            role,
            gone: config.gone,
            grace: config.grace,
            linger: config.linger,
        }
    }

    /// Runs until the connection has ended.
    pub(super) async fn run(mut self) {
        if self.role == Role::Client {
            self.shared.with(State::announce);
        }
        let shared = Arc::clone(&self.shared);
        let why = tokio::select! {
            biased;
            why = stopped(&shared) => why,
            why = self.receive() => why,
            why = send(&shared) => why,
        };
        shared.end(why.clone());
        self.incoming = None;
        self.farewell(&why).await;
    }

    async fn receive(&mut self) -> Ended {
        loop {
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(event)) => {
                    if let Err(why) = self.handle(event).await {
                        return why;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(malformed) => return malformed.into(),
            }
            match self.read().await {
                Ok(0) if self.decoder.inside_frame() || !self.buffer.is_empty() => return Ended::Truncated,
                Ok(0) => return Ended::Eof,
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
    }

    async fn read(&mut self) -> std::io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < self.read_size / 2 {
            self.buffer.reserve(self.read_size);
            self.block = self.block.max(self.buffer.capacity());
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = self.io.read_buf(&mut self.buffer).await?;
        if read == room {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        } else if read < self.read_size / 8 && self.read_size > SMALLEST_READ {
            self.read_size /= 2;
        }
        Ok(read)
    }

    async fn handle(&mut self, event: Event) -> Result<(), Ended> {
        if self.role == Role::Server {
            self.shared.with(State::announce);
        }
        match event {
            Event::Frame(frame) => {
                if let Some(opened) = self.shared.with(|state| state.control(frame))?
                    && let Some(alive) = self.alive.upgrade()
                {
                    let stream = Stream::new(alive, opened.stream, opened.headers);
                    if let Some(incoming) = &self.incoming
                        && let Err(refused) = incoming.send(stream)
                    {
                        refused.0.reset(Status::REFUSED_STREAM);
                    }
                }
            }
            Event::BadHeaders { stream, opens, .. } => self.shared.with(|state| state.bad_headers(stream, opens))?,
            Event::Data { stream, payload, fin } => self.deliver(stream, payload, fin).await?,
        }
        Ok(())
    }

    /// Puts data into its stream's inbox, and waits while that is full: nothing is read from the peer meanwhile.
    async fn deliver(&mut self, stream: u32, mut payload: Bytes, fin: bool) -> Result<(), Ended> {
        let small = self.block / 8;
        while let Some(back) = self.shared.with(|state| state.data(stream, payload, fin, small))? {
            payload = back;
            self.room().await?;
        }
        Ok(())
    }

    async fn room(&mut self) -> Result<(), Ended> {
        let room = self.shared.room.notified();
        if let Some(gone) = &mut self.gone {
            tokio::select! {
                biased;
                () = room => return Ok(()),
                () = gone => self.gone = Some(Box::pin(std::future::ready(()))),
            }
            // What the peer sent before it went may still be wanted: as long as it is being read, it is.
            return time::timeout(self.grace, self.shared.room.notified()).await.map_err(|_| Ended::Gone);
        }
        room.await;
        Ok(())
    }

    /// Says goodbye if that makes sense, and closes the byte stream.
    async fn farewell(mut self, why: &Ended) {
        let status = match why {
            Ended::Local | Ended::GoAway(_) => Some(GoAwayStatus::OK),
            Ended::Malformed(_) => Some(GoAwayStatus::PROTOCOL_ERROR),
            _ => None,
        };
        let shared = Arc::clone(&self.shared);
        let linger = self.linger;
        let close = async {
            let mut output = shared.output.lock().await;
            let Some(status) = status else { return drop(output.take()) };
            output.add_queue(&shared);
            let mut last = BytesMut::new();
            if let Ended::Malformed(malformed) = why
                && let Some((stream, status)) = malformed.stream_status()
            {
                let _ = Frame::RstStream { stream, status }.encode(&mut Deflater::new(), &mut last);
            }
            if let Some(last_good) = shared.with(|state| state.last_good()) {
                let _ = Frame::GoAway { last_good, status }.encode(&mut Deflater::new(), &mut last);
            }
            let mut last = &last[..];
            let sent = std::future::poll_fn(|cx| output.poll_send(&mut last, cx)).await;
            let Some(mut io) = output.take() else { return };
            drop(output);
            if sent.is_ok() && io.shutdown().await.is_ok() {
                // Closing with unread data would make the kernel throw away what the peer has not read yet.
                self.buffer.clear();
                self.buffer.reserve(SMALLEST_READ);
                while matches!(self.io.read_buf(&mut self.buffer).await, Ok(1..)) {
                    self.buffer.clear();
                }
            }
        };
        // Beyond the limit the peer has had its chance.
        let _ = time::timeout(linger, close).await;
        if let Ok(mut output) = shared.output.try_lock() {
            output.take();
        }
    }
}

async fn stopped(shared: &Shared) -> Ended {
    loop {
        let stop = shared.stop.notified();
        if let Some(why) = shared.with(|state| state.signals.end.clone()) {
            return why;
        }
        stop.await;
    }
}

/// Sends what readers, handles and frames of the peer have left to be sent.
async fn send(shared: &Shared) -> Ended {
    loop {
        shared.flush.notified().await;
        if shared.send_queue().await.is_err() {
            return shared.with(|state| state.signals.end.clone()).unwrap_or(Ended::Local);
        }
    }
}

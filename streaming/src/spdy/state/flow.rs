//! Windows in both directions.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Ended, Entry, Error, Frame, MAX_31, SPEC_WINDOW, Setting, State};

impl State {
    /// The next piece for a stream's reader; `None` after the last.
    pub(in super::super) fn poll_read(&mut self, stream: u32, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return Poll::Ready(Err(Error::Ended(self.ended.clone().unwrap_or(Ended::Local))));
        };
        if let Some(piece) = entry.inbox.pop() {
            self.consumed(piece.len());
            self.owe(stream, piece.len());
            return Poll::Ready(Ok(Some(piece)));
        }
        if entry.remote_fin {
            return Poll::Ready(Ok(None));
        }
        if let Some(reset) = entry.reset {
            return Poll::Ready(Err(reset.error(stream)));
        }
        if let Some(ended) = &self.ended {
            return Poll::Ready(Err(ended.clone().into()));
        }
        entry.wait_to_read(cx, &mut self.signals);
        Poll::Pending
    }

    /// Bytes have left an inbox or were never put into one: the connection has room for as many again.
    pub(super) fn consumed(&mut self, bytes: usize) {
        self.buffered -= bytes.min(self.buffered);
        self.credit(bytes);
        if self.paused && bytes > 0 {
            self.paused = false;
            self.signals.room = true;
        }
    }

    /// The connection's window was used by this many bytes that nobody waits for any more.
    pub(super) fn credit(&mut self, bytes: usize) {
        // Pieces are at most as long as a frame, 2^24 bytes.
        self.owed = self.owed.saturating_add(bytes as u32);
        if self.owed as usize >= self.session_limit / 2 && self.announced && !self.peer_overran {
            self.signals.flush = true;
        }
    }

    /// A stream's window was used by this many bytes that nobody waits for any more.
    pub(super) fn owe(&mut self, stream: u32, bytes: usize) {
        let half = self.inbox_limit / 2;
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        let before = entry.owed as usize;
        entry.owed = entry.owed.saturating_add(bytes as u32);
        if before < half.max(1) && entry.owed as usize >= half && !self.peer_overran && !entry.remote_fin {
            self.updates.push(stream);
            self.signals.flush = true;
        }
    }

    /// Frames that wait to be sent, window updates last.
    pub(in super::super) fn take_queue(&mut self, mut give: impl FnMut(&Frame)) {
        for frame in self.queue.drain(..) {
            give(&frame);
        }
        for stream in std::mem::take(&mut self.updates) {
            let Some(entry) = self.streams.get_mut(&stream) else { continue };
            let delta = std::mem::take(&mut entry.owed);
            entry.receive += i64::from(delta);
            if delta > 0 && !entry.over() && !entry.remote_fin && !self.peer_overran {
                give(&Frame::WindowUpdate { stream, delta });
            }
        }
        if self.owed as usize >= self.session_limit / 2 && self.announced {
            let delta = std::mem::take(&mut self.owed);
            self.receive += i64::from(delta);
            if !self.peer_overran {
                give(&Frame::WindowUpdate { stream: 0, delta });
            }
        }
    }

    /// Tells the peer our limits, once. A server waits with that for its client's first frame.
    pub(in super::super) fn announce(&mut self) {
        if self.announced {
            return;
        }
        self.announced = true;
        let setting = |id, value| Setting { flags: 0, id, value };
        self.push(Frame::Settings {
            clear: false,
            list: vec![
                setting(Setting::MAX_CONCURRENT_STREAMS, u32::try_from(self.max_streams).unwrap_or(MAX_31)),
                setting(Setting::INITIAL_WINDOW_SIZE, self.inbox_limit as u32),
            ],
        });
        let more = self.session_limit as i64 - SPEC_WINDOW;
        if more > 0 {
            self.push(Frame::WindowUpdate { stream: 0, delta: more as u32 });
        }
    }

    /// How much of `wanted` may be sent now on this stream. Until the peer has said anything, the specification's windows
    /// bind: a peer that counts would find too much before its own settings have come here.
    pub(super) fn window(&self, entry: &Entry, wanted: usize) -> usize {
        if self.heard && !self.peer_knows_windows {
            return wanted;
        }
        usize::try_from(self.send.min(entry.send)).unwrap_or(0).min(wanted)
    }

    pub(super) fn wake_writers(&mut self) {
        for entry in self.streams.values_mut() {
            self.signals.wakers.extend(entry.write_waker.take());
        }
    }
}

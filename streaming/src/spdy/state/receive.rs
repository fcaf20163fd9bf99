//! What frames of the peer do.

use bytes::Bytes;

use super::{Ended, Frame, GoAwayStatus, Headers, MAX_31, Malformed, Reset, Setting, State, Status, kind};

/// A stream that the peer has opened.
#[derive(Debug)]
pub(in super::super) struct Opened {
    pub(in super::super) stream: u32,
    pub(in super::super) headers: Headers,
}

impl State {
    /// Carries out a control frame. `Some` is a new stream for which there must be a reader and a writer.
    pub(in super::super) fn control(&mut self, frame: Frame) -> Result<Option<Opened>, Malformed> {
        if !std::mem::replace(&mut self.heard, true) {
            self.wake_writers();
        }
        match frame {
            Frame::SynStream { stream, fin, unidirectional, headers, .. } => {
                return Ok(self.syn_stream(stream, fin, unidirectional)?.then_some(Opened { stream, headers }));
            }
            Frame::SynReply { stream, fin, headers } => self.syn_reply(stream, fin, headers),
            Frame::Headers { stream, fin, .. } => {
                if self.receives(stream) && fin {
                    self.remote_fin(stream);
                }
            }
            Frame::RstStream { stream, status } => self.peer_reset(stream, status),
            Frame::Settings { list, .. } => self.settings(&list)?,
            Frame::Ping(id) => self.pinged(id),
            Frame::GoAway { last_good, status } => self.peer_goes_away(last_good, status),
            Frame::WindowUpdate { stream: 0, delta } => {
                self.learn_windows();
                if delta == 0 {
                    return Err(Malformed::Value { kind: kind::WINDOW_UPDATE, value: 0 });
                }
                self.send += i64::from(delta);
                if self.send > i64::from(MAX_31) {
                    return Err(Malformed::WindowOverflow);
                }
                self.wake_writers();
            }
            Frame::WindowUpdate { stream, delta } => self.window_update(stream, delta),
        }
        Ok(None)
    }

    /// A frame whose headers are wrong ends its stream.
    pub(in super::super) fn bad_headers(&mut self, stream: u32, opens: bool) -> Result<(), Malformed> {
        if opens {
            self.check_new(stream)?;
            if !self.streams.contains_key(&stream) {
                self.refuse(stream, Status::PROTOCOL_ERROR);
                return Ok(());
            }
        }
        if self.streams.contains_key(&stream) {
            self.reset(stream, Status::PROTOCOL_ERROR);
        } else {
            self.unknown(stream);
        }
        Ok(())
    }

    /// Checks the id of a SYN_STREAM; `false` if the stream was opened before.
    fn check_new(&mut self, stream: u32) -> Result<bool, Malformed> {
        if self.is_local(stream) || stream < self.last_remote {
            return Err(Malformed::StreamId(stream));
        }
        let new = stream > self.last_remote;
        self.last_remote = stream;
        Ok(new)
    }

    fn syn_stream(&mut self, stream: u32, fin: bool, unidirectional: bool) -> Result<bool, Malformed> {
        if !self.check_new(stream)? {
            if self.streams.contains_key(&stream) {
                self.reset(stream, Status::PROTOCOL_ERROR);
            } else {
                self.refuse(stream, Status::PROTOCOL_ERROR);
            }
            return Ok(false);
        }
        if self.goaway_sent.is_some() {
            return Ok(false);
        }
        if self.from_peer >= self.max_streams {
            self.refuse(stream, Status::REFUSED_STREAM);
            return Ok(false);
        }
        self.from_peer += 1;
        let entry = self.entry(false, unidirectional, fin, unidirectional);
        self.streams.insert(stream, entry);
        Ok(true)
    }

    fn syn_reply(&mut self, stream: u32, fin: bool, headers: Headers) {
        let Some(entry) = self.streams.get_mut(&stream) else { return self.unknown(stream) };
        if entry.reset.is_some() {
            return;
        }
        if !entry.local {
            return self.reset(stream, Status::PROTOCOL_ERROR);
        }
        if entry.replied {
            return self.reset(stream, Status::STREAM_IN_USE);
        }
        entry.replied = true;
        entry.reply = Some(headers);
        entry.wake(&mut self.signals);
        if fin {
            self.remote_fin(stream);
        }
    }

    /// Whether a stream may get anything now; the peer is told if not.
    fn receives(&mut self, stream: u32) -> bool {
        let Some(entry) = self.streams.get(&stream) else {
            self.unknown(stream);
            return false;
        };
        if entry.reset.is_some() {
            return false;
        }
        if entry.remote_fin {
            self.reset(stream, Status::STREAM_ALREADY_CLOSED);
            return false;
        }
        if entry.local && !entry.replied {
            self.reset(stream, Status::PROTOCOL_ERROR);
            return false;
        }
        true
    }

    /// A frame for a stream that there is not; one that this side has given up is no surprise.
    fn unknown(&mut self, stream: u32) {
        if self.goaway_sent.is_none() && !self.given_up.contains(&stream) {
            self.refuse(stream, Status::INVALID_STREAM);
        }
    }

    fn remote_fin(&mut self, stream: u32) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.remote_fin = true;
            self.signals.wakers.extend(entry.read_waker.take());
        }
        self.forget(stream);
    }

    fn peer_reset(&mut self, stream: u32, status: Status) {
        if let Some(entry) = self.streams.get_mut(&stream) {
            if entry.reset.is_none() {
                entry.reset = Some(Reset::Peer(status));
                entry.wake(&mut self.signals);
            }
            self.forget(stream);
        }
    }

    fn settings(&mut self, list: &[Setting]) -> Result<(), Malformed> {
        // Of several values for one id the first counts.
        let find = |id| list.iter().find(|setting| setting.id == id).map(|setting| setting.value);
        if let Some(limit) = find(Setting::MAX_CONCURRENT_STREAMS) {
            self.peer_max_streams = Some(limit);
        }
        let Some(value) = find(Setting::INITIAL_WINDOW_SIZE) else { return Ok(()) };
        if value > MAX_31 {
            return Err(Malformed::Value { kind: kind::SETTINGS, value });
        }
        self.learn_windows();
        let change = i64::from(value) - self.initial_send;
        self.initial_send = i64::from(value);
        for entry in self.streams.values_mut() {
            entry.send += change;
        }
        self.wake_writers();
        Ok(())
    }

    fn learn_windows(&mut self) {
        self.peer_knows_windows = true;
    }

    fn window_update(&mut self, stream: u32, delta: u32) {
        self.learn_windows();
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        if entry.over() {
            return;
        }
        if delta == 0 {
            return self.reset(stream, Status::PROTOCOL_ERROR);
        }
        entry.send += i64::from(delta);
        if entry.send > i64::from(MAX_31) {
            return self.reset(stream, Status::FLOW_CONTROL_ERROR);
        }
        self.signals.wakers.extend(entry.write_waker.take());
    }

    fn pinged(&mut self, id: u32) {
        if !self.is_local(id) {
            self.push(Frame::Ping(id));
        } else if let Some((asked, sender)) = self.pings.remove(&id) {
            // Whoever asked may have stopped waiting.
            let _ = sender.send(asked.elapsed());
        }
    }

    fn peer_goes_away(&mut self, last_good: u32, status: GoAwayStatus) {
        self.goaway_received.get_or_insert(status);
        let refused: Vec<u32> =
            self.streams.iter().filter(|(id, entry)| entry.local && **id > last_good).map(|(id, _)| *id).collect();
        for stream in refused {
            self.peer_reset(stream, Status::REFUSED_STREAM);
        }
        self.end_if_done();
    }

    /// Takes a piece of a DATA frame, or gives it back if its stream is full. Pieces below `small` are copied.
    pub(in super::super) fn data(
        &mut self,
        stream: u32,
        payload: Bytes,
        fin: bool,
        small: usize,
    ) -> Result<Option<Bytes>, Ended> {
        let length = payload.len();
        if !self.receives(stream) {
            self.receive -= length as i64;
            self.credit(length);
            return self.check_receive();
        }
        let (inbox_limit, bound) = (self.inbox_limit, self.peer_knows_windows && !self.peer_overran);
        let Some(entry) = self.streams.get_mut(&stream) else { return Ok(None) };
        let beyond = length as i64 > entry.receive;
        if beyond && bound {
            self.reset(stream, Status::FLOW_CONTROL_ERROR);
            self.receive -= length as i64;
            self.credit(length);
            return self.check_receive();
        }
        // A peer that keeps to its windows is bounded by them; behind what it sent may be the update that we wait for.
        let full = !bound && (entry.inbox.len() >= inbox_limit || self.buffered >= self.session_limit);
        if entry.reader && length > 0 && full {
            self.paused = true;
            return Ok(Some(payload));
        }
        self.peer_overran |= beyond;
        entry.receive -= length as i64;
        self.receive -= length as i64;
        if entry.reader {
            entry.inbox.push(payload, small);
            self.buffered += length;
            self.signals.wakers.extend(entry.read_waker.take());
        } else {
            self.credit(length);
            self.owe(stream, length);
        }
        if fin {
            self.remote_fin(stream);
        }
        self.check_receive()
    }

    fn check_receive(&mut self) -> Result<Option<Bytes>, Ended> {
        if self.receive < 0 {
            if self.peer_knows_windows && !self.peer_overran {
                return Err(Malformed::Overrun.into());
            }
            self.peer_overran = true;
        }
        Ok(None)
    }
}

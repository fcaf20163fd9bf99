//! What this side does: open, reply, write, finish, ping, go away.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Ended, Entry, Error, Frame, GoAwayStatus, Headers, Inbox, MAX_31, SPEC_WINDOW, State};

/// What a writer may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Turn {
    /// Send this many bytes.
    Send(usize),
    /// Send the reply first.
    Reply,
}

impl State {
    pub(super) fn entry(&self, local: bool, replied: bool, remote_fin: bool, local_fin: bool) -> Entry {
        Entry {
            local,
            replied,
            reply: None,
            remote_fin,
            local_fin,
            reset: None,
            reader: true,
            writer: true,
            inbox: Inbox::default(),
            send: self.initial_send,
            // Until the peer has read our settings, it may count on the specification's window.
            receive: (self.inbox_limit as i64).max(SPEC_WINDOW),
            owed: 0,
            read_waker: None,
            write_waker: None,
        }
    }

    fn alive(&self) -> Result<(), Error> {
        self.ended.as_ref().map_or(Ok(()), |ended| Err(ended.clone().into()))
    }

    /// Makes a stream of this side; its SYN_STREAM must be the next frame that is sent.
    pub(in super::super) fn open(&mut self, fin: bool) -> Result<u32, Error> {
        self.alive()?;
        if self.goaway_sent.is_some() || self.goaway_received.is_some() {
            return Err(Error::GoingAway);
        }
        if let Some(limit) = self.peer_max_streams
            && self.streams.values().filter(|entry| entry.local && !entry.over()).count() >= limit as usize
        {
            return Err(Error::TooManyStreams(limit));
        }
        let stream = self.next_local;
        if stream > MAX_31 {
            return Err(Error::IdsExhausted);
        }
        self.next_local += 2;
        let entry = self.entry(true, false, false, fin);
        self.streams.insert(stream, entry);
        Ok(stream)
    }

    /// Marks a stream of the peer as replied to; the SYN_REPLY must be the next frame that is sent.
    pub(in super::super) fn reply(&mut self, stream: u32, fin: bool) -> Result<(), Error> {
        self.alive()?;
        let Some(entry) = self.streams.get_mut(&stream) else { return Err(Error::NoReply(stream)) };
        if let Some(reset) = entry.reset {
            return Err(reset.error(stream));
        }
        if entry.local || entry.replied {
            return Err(Error::NoReply(stream));
        }
        entry.replied = true;
        entry.local_fin |= fin;
        Ok(())
    }

    /// The reply of the peer to a stream of this side.
    pub(in super::super) fn poll_reply(&mut self, stream: u32, cx: &Context<'_>) -> Poll<Result<Headers, Error>> {
        if let Err(error) = self.alive() {
            return Poll::Ready(Err(error));
        }
        let Some(entry) = self.streams.get_mut(&stream) else { return Poll::Ready(Err(Error::NoReply(stream))) };
        if let Some(headers) = &entry.reply {
            return Poll::Ready(Ok(headers.clone()));
        }
        if let Some(reset) = entry.reset {
            return Poll::Ready(Err(reset.error(stream)));
        }
        if !entry.local {
            return Poll::Ready(Err(Error::NoReply(stream)));
        }
        entry.wait_to_read(cx, &mut self.signals);
        Poll::Pending
    }

    fn writable(&self, stream: u32) -> Result<&Entry, Error> {
        self.alive()?;
        let entry = self.streams.get(&stream).ok_or(Error::Ended(Ended::Local))?;
        if let Some(reset) = entry.reset {
            return Err(reset.error(stream));
        }
        if entry.local_fin {
            return Err(Error::Finished(stream));
        }
        Ok(entry)
    }

    /// Waits for the windows to allow anything of `wanted`.
    pub(in super::super) fn poll_window(
        &mut self,
        stream: u32,
        wanted: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let entry = match self.writable(stream) {
            Ok(entry) => entry,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if wanted == 0 || self.window(entry, wanted) > 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.wait_to_write(cx, &mut self.signals);
        }
        Poll::Pending
    }

    /// Takes as much of the windows as there is for `wanted`; the bytes must be in the next frame that is sent.
    pub(in super::super) fn take_window(&mut self, stream: u32, wanted: usize, fin: bool) -> Result<Turn, Error> {
        let entry = self.writable(stream)?;
        if !entry.local && !entry.replied {
            return Ok(Turn::Reply);
        }
        let taken = self.window(entry, wanted);
        self.send -= taken as i64;
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.send -= taken as i64;
            entry.local_fin = fin;
        }
        Ok(Turn::Send(taken))
    }

    /// Gives back what was taken for a frame of which nothing was sent.
    pub(in super::super) fn untake_window(&mut self, stream: u32, taken: usize, fin: bool) {
        self.send += taken as i64;
        if let Some(entry) = self.streams.get_mut(&stream) {
            entry.send += taken as i64;
            entry.local_fin &= !fin;
        }
        // Somebody else may have waited for the connection's window.
        self.wake_writers();
    }

    pub(in super::super) fn ping(&mut self) -> Result<oneshot::Receiver<Duration>, Error> {
        self.alive()?;
        let (sender, receiver) = oneshot::channel();
        self.pings.retain(|_, (_, sender)| !sender.is_closed());
        let id = self.next_ping;
        self.next_ping = id.wrapping_add(2);
        self.pings.insert(id, (Instant::now(), sender));
        self.push(Frame::Ping(id));
        Ok(receiver)
    }

    pub(in super::super) fn go_away(&mut self, status: GoAwayStatus) {
        if self.goaway_sent.is_none() {
            self.goaway_sent = Some(status);
            self.push(Frame::GoAway { last_good: self.last_remote, status });
            self.end_if_done();
        }
    }
}

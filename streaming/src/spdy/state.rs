//! The state of a connection: streams, windows, what is owed to the peer. It only decides; nothing here waits or
//! touches the byte stream.

use std::{
    collections::{HashMap, VecDeque},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    config::{Config, Role},
    error::{Ended, Error, Malformed},
    frame::{Frame, GoAwayStatus, MAX_31, Setting, Status, kind},
    headers::Headers,
    inbox::Inbox,
};

mod flow;
mod receive;
mod send;

pub(super) use send::Turn;

/// The window of a new stream and of the connection, until somebody says otherwise.
const SPEC_WINDOW: i64 = 64 << 10;
/// How many streams that this side gave up are remembered, so that what is still under way is not taken for an error.
const REMEMBERED: usize = 256;
/// Answers that may wait for a peer that does not read, beyond two for each stream.
const MAX_QUEUE: usize = 1024;

#[derive(Debug)]
pub(super) struct State {
    role: Role,
    max_streams: usize,
    inbox_limit: usize,
    session_limit: usize,
    streams: HashMap<u32, Entry>,
    /// Streams in the table that the peer opened.
    from_peer: usize,
    next_local: u32,
    last_remote: u32,
    given_up: VecDeque<u32>,
    peer_max_streams: Option<u32>,

    /// The peer has sent a control frame: one that knows flow control begins with its settings.
    heard: bool,
    /// The peer has shown that it knows flow control, so its windows bind this side and ours bind it.
    peer_knows_windows: bool,
    /// The peer has sent more than our windows allow, so it gets no updates: it would only queue them.
    peer_overran: bool,
    initial_send: i64,
    send: i64,
    receive: i64,
    /// Bytes consumed of the connection's window that the peer was not told about.
    owed: u32,
    /// Bytes in all inboxes.
    buffered: usize,
    announced: bool,

    queue: VecDeque<Frame>,
    /// Streams for which `Entry::owed` has reached the point of an update.
    updates: Vec<u32>,

    next_ping: u32,
    pings: HashMap<u32, (Instant, oneshot::Sender<Duration>)>,

    goaway_sent: Option<GoAwayStatus>,
    goaway_received: Option<GoAwayStatus>,
    ended: Option<Ended>,
    /// The reading task waits for room in an inbox.
    paused: bool,
    /// Whom to tell once the lock is gone.
    pub(super) signals: Signals,
}

/// What follows from a change.
#[derive(Debug, Default)]
pub(super) struct Signals {
    pub(super) wakers: Vec<Waker>,
    /// Something waits to be sent.
    pub(super) flush: bool,
    /// An inbox has room again.
    pub(super) room: bool,
    /// The connection should end, for this reason.
    pub(super) end: Option<Ended>,
}

#[derive(Debug)]
struct Entry {
    local: bool,
    /// The reply was sent, or has come.
    replied: bool,
    reply: Option<Headers>,
    /// The peer, or this side, sends nothing more.
    remote_fin: bool,
    local_fin: bool,
    reset: Option<Reset>,
    /// Handles that still exist.
    reader: bool,
    writer: bool,
    inbox: Inbox,
    send: i64,
    receive: i64,
    owed: u32,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy)]
enum Reset {
    Local(Status),
    Peer(Status),
}

// === impl Entry ===

impl Entry {
    fn over(&self) -> bool {
        self.reset.is_some() || (self.remote_fin && self.local_fin)
    }

    fn wake(&mut self, signals: &mut Signals) {
        signals.wakers.extend(self.read_waker.take());
        signals.wakers.extend(self.write_waker.take());
    }

    fn wait_to_read(&mut self, cx: &Context<'_>, signals: &mut Signals) {
        wait(&mut self.read_waker, cx, signals);
    }

    fn wait_to_write(&mut self, cx: &Context<'_>, signals: &mut Signals) {
        wait(&mut self.write_waker, cx, signals);
    }
}

/// Remembers whom to wake. A waker may own what must not be dropped under the lock, so an old one is woken instead.
fn wait(slot: &mut Option<Waker>, cx: &Context<'_>, signals: &mut Signals) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        signals.wakers.extend(slot.replace(cx.waker().clone()));
    }
}

impl Reset {
    fn error(self, stream: u32) -> Error {
        match self {
            Self::Local(status) => Error::Cancelled { stream, status },
            Self::Peer(status) => Error::Reset { stream, status },
        }
    }
}

// === impl State ===

impl State {
    pub(super) fn new(role: Role, config: &Config) -> Self {
        let (next_local, next_ping) = match role {
            Role::Client => (1, 1),
            Role::Server => (2, 2),
        };
        let session_limit = config.session.clamp(SPEC_WINDOW as usize, MAX_31 as usize);
        Self {
            role,
            max_streams: config.max_streams,
            inbox_limit: config.inbox.clamp(1, MAX_31 as usize),
            session_limit,
            streams: HashMap::new(),
            from_peer: 0,
            next_local,
            last_remote: 0,
            given_up: VecDeque::new(),
            peer_max_streams: None,
            heard: false,
            peer_knows_windows: false,
            peer_overran: false,
            initial_send: SPEC_WINDOW,
            send: SPEC_WINDOW,
            receive: session_limit as i64,
            owed: 0,
            buffered: 0,
            announced: false,
            queue: VecDeque::new(),
            updates: Vec::new(),
            next_ping,
            pings: HashMap::new(),
            goaway_sent: None,
            goaway_received: None,
            ended: None,
            paused: false,
            signals: Signals::default(),
        }
    }

    pub(super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Ends everything: all that wait learn why.
    pub(super) fn end(&mut self, why: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(why);
        self.pings.clear();
        for entry in self.streams.values_mut() {
            entry.wake(&mut self.signals);
        }
    }

    fn is_local(&self, stream: u32) -> bool {
        (stream % 2 == 1) == (self.role == Role::Client)
    }

    /// The last stream of the peer, for a goodbye, unless that was sent before.
    pub(super) fn last_good(&self) -> Option<u32> {
        self.goaway_sent.is_none().then_some(self.last_remote)
    }

    /// Resets a stream from this side, unless it is over anyway.
    pub(super) fn reset(&mut self, stream: u32, status: Status) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        if !entry.over() {
            entry.reset = Some(Reset::Local(status));
            entry.wake(&mut self.signals);
            let dropped = entry.inbox.clear();
            self.consumed(dropped);
            self.refuse(stream, status);
        }
        self.forget(stream);
    }

    /// Tells the peer that a stream is none, and remembers that.
    fn refuse(&mut self, stream: u32, status: Status) {
        if self.given_up.len() == REMEMBERED {
            self.given_up.pop_front();
        }
        self.given_up.push_back(stream);
        self.push(Frame::RstStream { stream, status });
    }

    fn push(&mut self, frame: Frame) {
        if self.ended.is_some() {
            return;
        }
        self.queue.push_back(frame);
        self.signals.flush = true;
        if self.queue.len() > MAX_QUEUE + 2 * self.max_streams {
            self.signals.end.get_or_insert(Ended::Flood(self.queue.len()));
        }
    }

    /// Drops a stream of which neither the peer nor anybody here knows any more.
    fn forget(&mut self, stream: u32) {
        if let Some(entry) = self.streams.get(&stream)
            && entry.over()
            && !entry.reader
            && !entry.writer
        {
            if !entry.local {
                self.from_peer -= 1;
            }
            self.streams.remove(&stream);
        }
        self.end_if_done();
    }

    /// After a goodbye the connection ends with its last stream.
    fn end_if_done(&mut self) {
        if let Some(status) = self.goaway_received.or(self.goaway_sent)
            && self.streams.values().all(|entry| entry.over() && !entry.writer)
        {
            self.signals.end.get_or_insert(Ended::GoAway(status));
        }
    }

    /// The reader of a stream is gone: what comes is thrown away from now on.
    pub(super) fn drop_reader(&mut self, stream: u32) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.reader = false;
        self.signals.wakers.extend(entry.read_waker.take());
        let dropped = entry.inbox.clear();
        self.consumed(dropped);
        // The peer may go on, into the void.
        self.owe(stream, dropped);
        self.abandon(stream);
    }

    /// The writer of a stream is gone.
    pub(super) fn drop_writer(&mut self, stream: u32) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.writer = false;
        self.signals.wakers.extend(entry.write_waker.take());
        self.abandon(stream);
    }

    /// Resets a stream if it can never end well: its writer has gone without finishing, or nobody is left at all.
    fn abandon(&mut self, stream: u32) {
        let Some(entry) = self.streams.get(&stream) else { return };
        let unfinished = !entry.writer && !entry.local_fin;
        let unread = !entry.writer && !entry.reader && !entry.remote_fin;
        if unfinished || unread {
            self.reset(stream, Status::CANCEL);
        } else {
            self.forget(stream);
        }
    }
}

//! What the shim waits for: epoll, with a name for each descriptor.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::Errno,
};

use crate::log::Stream;

/// Identifies a registered descriptor; never used twice.
pub(crate) type Token = u64;

/// What a descriptor is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A daemon connects.
    Listener,
    /// A child has ended.
    Children,
    /// A connection.
    Link,
    /// The channel of a container that is being started.
    ContainerStart(String),
    /// The channel of an exec that is being started.
    ExecStart(String),
    /// Output of a container.
    Output(String, Stream),
    /// Somebody who reads that output, and has gone.
    Viewer(String, Stream),
}

/// The set of descriptors that are waited for.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    sources: BTreeMap<Token, Source>,
    next: Token,
}

/// Most events that one wait returns; more come with the next.
const BATCH: usize = 16;

// === impl Poll ===

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, sources: BTreeMap::new(), next: 0 })
    }

    /// Waits for `fd` to become readable, from now on.
    pub(crate) fn add(&mut self, fd: impl AsFd, source: Source) -> io::Result<Token> {
        self.register(fd, source, EventFlags::IN)
    }

    /// Waits for the peer of the socket `fd` to close it; that there is something to read is no reason to wake up.
    pub(crate) fn add_until_closed(&mut self, fd: impl AsFd, source: Source) -> io::Result<Token> {
        self.register(fd, source, EventFlags::RDHUP)
    }

    /// Waits for the readers of the pipe whose writing end `fd` is to close it.
    pub(crate) fn add_until_unread(&mut self, fd: impl AsFd, source: Source) -> io::Result<Token> {
        // The kernel always tells of errors, and a pipe without readers is one.
        self.register(fd, source, EventFlags::empty())
    }

    fn register(&mut self, fd: impl AsFd, source: Source, flags: EventFlags) -> io::Result<Token> {
        self.next += 1;
        epoll::add(&self.epoll, fd, EventData::new_u64(self.next), flags)?;
        self.sources.insert(self.next, source);
        Ok(self.next)
    }

    /// Also waits for `fd` to become writable, or not any more.
    pub(crate) fn want_writable(&self, fd: impl AsFd, token: Token, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Waits for `fd` to become readable, or only for its end.
    pub(crate) fn want_readable(&self, fd: impl AsFd, token: Token, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EventFlags::IN } else { EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Forgets `fd`. Must be called before it is closed: a forked child may hold a copy that keeps it registered.
    pub(crate) fn remove(&mut self, fd: impl AsFd, token: Token) {
        self.sources.remove(&token);
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// What a token stands for; `None` if that was removed meanwhile.
    pub(crate) fn source(&self, token: Token) -> Option<Source> {
        self.sources.get(&token).cloned()
    }

    /// Waits, for ever without `timeout`, and returns what is ready; nothing after the time-out.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let mut events = Vec::with_capacity(BATCH);
        let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs().cast_signed(), tv_nsec: t.subsec_nanos().into() });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(events.iter().map(|event| event.data.u64()).collect()),
            Err(e) => Err(e.into()),
        }
    }
}

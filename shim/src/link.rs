//! A connection to a daemon. The shim never waits for one: what a peer does not read is queued, and a peer that does
//! not read for long loses the connection. It connects again and asks what happened.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use tripod_shim_protocol::{
    FromShim, frame,
    wire::{Frame, Incoming, Outgoing},
};

/// Bytes that may wait for a slow reader.
const MAX_WAITING: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Something waits for the socket to become writable.
    pub(crate) waits: bool,
}

/// What came of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Nothing waits any more.
    All,
    /// The rest must wait until the socket is writable.
    Part,
}

// === impl Link ===

impl Link {
    /// Takes a non-blocking socket.
    pub(crate) fn new(socket: OwnedFd) -> Link {
        Link { socket, incoming: Incoming::default(), outgoing: Outgoing::default(), waits: false }
    }

    /// The next request, `None` if there is none yet. Errors, the end of the stream among them, end the connection.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Frame>> {
        match self.incoming.receive(&self.socket) {
            Ok(Some(frame)) => Ok(Some(frame)),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Queues a message and sends what can be sent.
    pub(crate) fn send(&mut self, message: &FromShim, fds: Vec<OwnedFd>) -> io::Result<Sent> {
        let bytes = frame::encode(message, fds.len()).map_err(io::Error::other)?;
        self.outgoing.push(bytes, fds);
        if self.outgoing.waiting() > MAX_WAITING {
            return Err(io::Error::other("the peer does not read"));
        }
        self.flush()
    }

    /// Sends what can be sent.
    pub(crate) fn flush(&mut self) -> io::Result<Sent> {
        match self.outgoing.send(&self.socket) {
            Ok(()) => Ok(Sent::All),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Part),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

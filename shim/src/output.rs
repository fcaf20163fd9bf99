//! What a container writes: read as it comes, so that the container never waits longer than the shim's loop takes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::io::Errno;

use crate::{
    clock,
    log::{Log, Splitter, Stream},
    poll::{Poll, Token},
    viewer::Viewer,
};

/// Bytes read at once; a pipe holds as many.
pub(crate) const CHUNK: usize = 64 << 10;

/// Bytes read at most after a container's end, where a process of another container may hold the other end open and
/// write on.
const MAX_LEFT: usize = 1 << 20;

/// The reading end of a container's standard output or error, or the master of its terminal.
#[derive(Debug)]
pub(crate) struct Output {
    /// Which of the two.
    pub(crate) stream: Stream,
    /// Where it is registered.
    pub(crate) token: Token,
    /// Clients that are attached.
    pub(crate) viewers: Vec<Viewer>,
    fd: OwnedFd,
    splitter: Splitter,
}

/// What there was to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// So many bytes.
    Some(usize),
    /// Nothing at the moment.
    Nothing,
    /// Nothing any more.
    End,
}

/// Memory for one read and for the lines made of it. Allocated when there is something to read, dropped when idle.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    lines: Vec<u8>,
}

// === impl Output ===

impl Output {
    /// Takes a non-blocking descriptor.
    pub(crate) fn new(stream: Stream, token: Token, fd: OwnedFd) -> Output {
        Output { stream, token, viewers: Vec::new(), fd, splitter: Splitter::new(stream) }
    }

    /// Reads once, and writes what was read to the log, if there is one, and to whoever is attached.
    pub(crate) fn take(&mut self, log: Option<&mut Log>, scratch: &mut Scratch) -> Taken {
        scratch.bytes.resize(CHUNK, 0);
        match rustix::io::read(&self.fd, &mut scratch.bytes[..]) {
            Ok(0) => Taken::End,
            Ok(n) => {
                if let Some(log) = log {
                    scratch.lines.clear();
                    let stamp = clock::rfc3339(clock::now());
                    self.splitter.push(&stamp, &scratch.bytes[..n], &mut scratch.lines);
                    log.write(&scratch.lines);
                }
                for viewer in &mut self.viewers {
                    viewer.show(&scratch.bytes[..n]);
                }
                Taken::Some(n)
            }
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            // A terminal that nobody has open any more gives EIO.
            Err(_) => Taken::End,
        }
    }

    /// Another descriptor for the same end.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Whoever was attached with this token has gone.
    pub(crate) fn forget_viewer(&mut self, token: Token, poll: &mut Poll) {
        if let Some(at) = self.viewers.iter().position(|viewer| viewer.token == token) {
            let viewer = self.viewers.swap_remove(at);
            poll.remove(&viewer, token);
        }
    }

    /// Forgets this output and all who are attached to it.
    pub(crate) fn unwatch(&self, poll: &mut Poll) {
        poll.remove(self, self.token);
        for viewer in &self.viewers {
            poll.remove(viewer, viewer.token);
        }
    }

    /// Reads what is left after the container's end and completes the log.
    pub(crate) fn finish(mut self, mut log: Option<&mut Log>, scratch: &mut Scratch) {
        let mut left = MAX_LEFT;
        while let Taken::Some(n) = self.take(log.as_deref_mut(), scratch) {
            left = left.saturating_sub(n);
            if left == 0 {
                break;
            }
        }
        if let Some(log) = log {
            scratch.lines.clear();
            self.splitter.finish(&clock::rfc3339(clock::now()), &mut scratch.lines);
            log.write(&scratch.lines);
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

// === impl Scratch ===

impl Scratch {
    /// Whether there is memory to give back.
    pub(crate) fn is_used(&self) -> bool {
        self.bytes.capacity() > 0
    }
}

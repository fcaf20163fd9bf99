//! What a container writes: read so often that the container never waits for longer than its pipe holds out.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::io::Errno;

use crate::{
    clock,
    log::{Log, Splitter, Stream},
    pace::{self, Next, Pace},
    poll::{Poll, Token},
    viewer::Viewer,
};

/// Bytes read at once; a pipe holds as many.
pub(crate) const CHUNK: usize = 64 << 10;

/// Bytes read at most of one output before others have their turn.
const TURN: usize = 1 << 20;

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
    pub(crate) pace: Pace,
    fd: OwnedFd,
    splitter: Splitter,
    /// A pipe can wait to be read; a terminal has somebody before it.
    pipe: Option<Room>,
}

/// The size of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Usual,
    Enlarged,
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
    /// Takes a non-blocking pipe.
    pub(crate) fn pipe(stream: Stream, token: Token, fd: OwnedFd) -> Output {
        Output { pipe: Some(Room::Usual), ..Output::terminal(stream, token, fd) }
    }

    /// Takes the non-blocking master of a terminal.
    pub(crate) fn terminal(stream: Stream, token: Token, fd: OwnedFd) -> Output {
        let (viewers, splitter, pace) = (Vec::new(), Splitter::new(stream), Pace::new(Instant::now()));
        Output { stream, token, viewers, pace, fd, splitter, pipe: None }
    }

    /// Reads what there is, up to a limit that is fair to others, and settles when that is done next.
    pub(crate) fn turn(&mut self, mut log: Option<&mut Log>, scratch: &mut Scratch, poll: &Poll) -> Taken {
        let mut sum = 0;
        loop {
            match self.take(log.as_deref_mut(), scratch) {
                Taken::End => return Taken::End,
                Taken::Some(n) => {
                    sum += n;
                    if n < CHUNK || sum >= TURN {
                        break;
                    }
                }
                Taken::Nothing => break,
            }
        }
        if self.pipe.is_some() {
            self.settle(sum, poll);
        }
        if sum > 0 { Taken::Some(sum) } else { Taken::Nothing }
    }

    /// Chatter is not waited for; its reader comes by itself.
    fn settle(&mut self, bytes: usize, poll: &Poll) {
        let was_paused = self.pace.until.is_some();
        let pauses = matches!(self.pace.read(bytes, Instant::now()), Next::At(_));
        if pauses && self.pipe == Some(Room::Usual) {
            // The kernel may say no; then the container waits a little more often.
            let _ = rustix::pipe::fcntl_setpipe_size(&self.fd, pace::PIPE);
            self.pipe = Some(Room::Enlarged);
        }
        if pauses != was_paused && poll.want_readable(&self.fd, self.token, !pauses).is_err() {
            // Woken too often is better than never.
            self.pace.until = None;
        }
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

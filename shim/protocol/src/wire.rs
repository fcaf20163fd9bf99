//! Frames over a unix stream socket, for sockets that block and for those that do not: both ends keep what is half
//! received or half sent, and `WouldBlock` means "call again when the socket is ready".

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
};

use tripod_sys::scm;

use crate::frame::{self, HEADER, Header};

/// The most bytes that one read asks for.
const PIECE: usize = 256 << 10;

/// A received message: its JSON and the descriptors that came with it.
#[derive(Debug)]
pub struct Frame {
    /// The JSON.
    pub body: Vec<u8>,
    /// File descriptors, in the order in which the message names them; closed on exec.
    pub fds: Vec<OwnedFd>,
}

/// The receiving end of a connection.
#[derive(Debug, Default)]
pub struct Incoming {
    header: Option<Header>,
    /// The header while it is incomplete, then the body.
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// The sending end of a connection: a queue.
#[derive(Debug, Default)]
pub struct Outgoing {
    queue: VecDeque<Message>,
    sent: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

// === impl Incoming ===

impl Incoming {
    /// Receives the next frame; `None` is the end of the stream.
    pub fn receive(&mut self, socket: impl AsFd) -> io::Result<Option<Frame>> {
        loop {
            let wanted = self.header.map_or(HEADER, |header| header.body);
            if self.bytes.len() < wanted && !self.fill(&socket, wanted)? {
                if self.header.is_none() && self.bytes.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.bytes.len() < wanted {
                continue;
            }
            match self.header.take() {
                None => {
                    let mut bytes = [0; HEADER];
                    bytes.copy_from_slice(&self.bytes);
                    self.header = Some(frame::decode_header(bytes).map_err(invalid)?);
                    self.bytes = Vec::new();
                }
                Some(header) => {
                    let fds = std::mem::take(&mut self.fds);
                    if fds.len() != header.fds {
                        let text = format!("{} file descriptors came where {} were announced", fds.len(), header.fds);
                        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                    }
                    return Ok(Some(Frame { body: std::mem::take(&mut self.bytes), fds }));
                }
            }
        }
    }

    /// One read of what is missing to `wanted` bytes; `false` is the end of the stream.
    fn fill(&mut self, socket: impl AsFd, wanted: usize) -> io::Result<bool> {
        // In pieces, so that memory follows what has come and not what was announced.
        let have = self.bytes.len();
        self.bytes.resize(wanted.min(have + PIECE), 0);
        let result = scm::receive(socket, &mut self.bytes[have..], &mut self.fds);
        self.bytes.truncate(have + result.as_ref().map_or(0, |n| *n));
        match result {
            Ok(n) => Ok(n > 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e),
        }
    }
}

fn invalid(error: frame::FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

// === impl Outgoing ===

impl Outgoing {
    /// Appends a message as [`frame::encode`] made it, with its descriptors.
    pub fn push(&mut self, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        self.bytes += bytes.len();
        self.queue.push_back(Message { bytes, fds });
    }

    /// Bytes that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// Sends all that waits, or as much as the socket takes.
    pub fn send(&mut self, socket: impl AsFd) -> io::Result<()> {
        while let Some(message) = self.queue.front_mut() {
            let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
            let n = match scm::send(&socket, &message.bytes[self.sent..], &fds) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            drop(fds);
            message.fds.clear();
            self.sent += n;
            self.bytes -= n;
            if self.sent == message.bytes.len() {
                self.queue.pop_front();
                self.sent = 0;
            }
        }
        // An idle connection keeps no memory.
        self.queue.shrink_to_fit();
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Frames with file descriptors over a tokio socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use tokio::{
    io::Interest,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tripod_shim_protocol::{FromShim, frame};
use tripod_sys::scm;

/// Bytes asked for at a time.
const CHUNK: usize = 16 << 10;

/// Writes frames. Whoever asked may go away at any point: a frame is then sent by whoever writes next, or not at all.
#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
    /// What is left of a frame that has begun.
    rest: Vec<u8>,
}

impl Writer {
    pub fn new(half: OwnedWriteHalf) -> Self {
        Self { half, rest: Vec::new() }
    }

    /// Sends one frame; its file descriptors travel with the first byte.
    pub async fn write(&mut self, frame: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        self.finish().await?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let sent = send(&self.half, frame, &fds).await?;
        self.rest.extend_from_slice(&frame[sent..]);
        self.finish().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            let sent = send(&self.half, &self.rest, &[]).await?;
            self.rest.drain(..sent);
        }
        self.rest.shrink_to(0);
        Ok(())
    }
}

/// Sends a part, together with all file descriptors. Dropped early, it has sent nothing.
async fn send(half: &OwnedWriteHalf, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let stream: &UnixStream = half.as_ref();
    loop {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, || scm::send(stream, bytes, fds)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Reads frames.
pub(super) struct Reader {
    half: OwnedReadHalf,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Reader {
    pub fn new(half: OwnedReadHalf) -> Self {
        Self { half, bytes: Vec::new(), fds: Vec::new() }
    }

    /// The next message with its file descriptors; `None` at the end of the connection.
    pub async fn next(&mut self) -> io::Result<Option<(FromShim, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.half.readable().await?;
            match self.receive() {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole message from what has been read so far.
    fn take(&mut self) -> io::Result<Option<(FromShim, Vec<OwnedFd>)>> {
        let Some(header) = self.bytes.first_chunk::<{ frame::HEADER }>() else { return Ok(None) };
        let header = frame::decode_header(*header).map_err(io::Error::other)?;
        let end = frame::HEADER + header.body;
        if self.bytes.len() < end {
            return Ok(None);
        }
        if self.fds.len() < header.fds {
            return Err(io::Error::other("a message came without its file descriptors"));
        }
        let message = frame::decode(&self.bytes[frame::HEADER..end]).map_err(io::Error::other)?;
        self.bytes.drain(..end);
        self.bytes.shrink_to(0);
        Ok(Some((message, self.fds.drain(..header.fds).collect())))
    }

    fn receive(&mut self) -> io::Result<usize> {
        let stream: &UnixStream = self.half.as_ref();
        let before = self.bytes.len();
        self.bytes.resize(before + CHUNK, 0);
        let received =
            stream.try_io(Interest::READABLE, || scm::receive(stream, &mut self.bytes[before..], &mut self.fds));
        self.bytes.truncate(before + received.as_ref().map_or(0, |count| *count));
        received
    }
}

#[cfg(test)]
mod tests;

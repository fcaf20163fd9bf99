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

/// Sends one frame; its file descriptors travel with the first byte.
pub(super) async fn write(half: &mut OwnedWriteHalf, frame: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let stream: &UnixStream = half.as_ref();
    let mut fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut rest = frame;
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, || scm::send(stream, rest, &fds)) {
            Ok(sent) => {
                fds.clear();
                rest = &rest[sent..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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

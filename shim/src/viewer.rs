//! A client that is attached to an output of a container. It gets a pipe; the shim writes into it what the container
//! writes, and never waits: a client that does not read must not stop a container.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::{poll::Token, stdio::nonblocking};

/// Bytes that may wait for a client, if the kernel allows so many; a pipe has 64 KiB by itself.
const ROOM: usize = 1 << 20;

/// The writing end of a client's pipe.
#[derive(Debug)]
pub(crate) struct Viewer {
    /// Where it is registered.
    pub(crate) token: Token,
    pipe: OwnedFd,
    /// Bytes that the client missed and was not told of.
    missed: u64,
}

/// A pipe to a client: its reading end, and ours.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    nonblocking(&write)?;
    // More room is good to have and no more than that.
    let _ = fcntl_setpipe_size(&write, ROOM);
    Ok((read, write))
}

impl Viewer {
    pub(crate) fn new(token: Token, pipe: OwnedFd) -> Viewer {
        Viewer { token, pipe, missed: 0 }
    }

    /// Writes what fits. The rest is counted, and told in the stream itself once there is room again.
    pub(crate) fn show(&mut self, bytes: &[u8]) {
        if self.missed > 0 {
            let notice = format!(
                "\r\ntripod: {} bytes of output are missing here: read faster, or read the log\r\n",
                self.missed
            );
            // A pipe takes so few bytes as a whole or not at all.
            if rustix::io::write(&self.pipe, notice.as_bytes()).is_ok() {
                self.missed = 0;
            }
        }
        let written = if self.missed == 0 { rustix::io::write(&self.pipe, bytes).unwrap_or(0) } else { 0 };
        self.missed += (bytes.len() - written) as u64;
    }
}

impl AsFd for Viewer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

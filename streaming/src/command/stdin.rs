//! From the client to a process's input.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use tokio::{
    io::unix::AsyncFd,
    sync::{oneshot, watch},
};

use super::pump::over;
use crate::idle::Idle;

/// A process's input. Once the process has closed it or has ended, what still comes is thrown away.
#[derive(Debug)]
pub(super) struct Stdin<'a> {
    fd: Option<AsyncFd<OwnedFd>>,
    /// A terminal has no end of input.
    terminal: bool,
    ended: watch::Receiver<bool>,
    /// To be told of the end of the input.
    leave: Option<oneshot::Sender<()>>,
    idle: &'a Idle,
}

impl<'a> Stdin<'a> {
    pub(super) fn new(
        fd: Option<AsyncFd<OwnedFd>>,
        terminal: bool,
        ended: watch::Receiver<bool>,
        leave: Option<oneshot::Sender<()>>,
        idle: &'a Idle,
    ) -> Self {
        Self { fd, terminal, ended, leave, idle }
    }

    /// Writes all of it, as fast as the process takes it.
    pub(super) async fn write(&mut self, mut data: &[u8]) {
        self.idle.touch();
        while let (Some(fd), false) = (&self.fd, data.is_empty()) {
            tokio::select! {
                biased;
                () = over(&mut self.ended) => self.fd = None,
                ready = fd.writable() => match ready.map(|mut ready| ready.try_io(|fd| Ok(rustix::io::write(fd, data)?))) {
                    Ok(Ok(Ok(length))) => {
                        data = &data[length..];
                        self.idle.touch();
                    }
                    Ok(Ok(Err(error))) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
                    Ok(Err(_not_ready)) => {}
                    Ok(Ok(Err(_))) | Err(_) => self.fd = None,
                }
            }
        }
    }

    /// The client has no more.
    pub(super) fn end(&mut self) {
        if let Some(leave) = self.leave.take() {
            // A session that is over needs not hear it.
            let _ = leave.send(());
        }
        if !self.terminal {
            self.fd = None;
        }
    }
}

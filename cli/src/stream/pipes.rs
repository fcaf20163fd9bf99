//! This side's standard streams.
//!
//! Each end has a thread of its own: reads from and writes to a terminal, pipe or file may block for as long as they
//! like, and a read that still waits when the session is over must not keep the program from ending.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    stdio,
};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Bytes;

/// Bytes of input in one message.
const INPUT: usize = 64 << 10;

/// Messages that wait between a thread and the connection: when they are used up, the faster side waits.
const QUEUE: usize = 16;

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Out,
    Err,
}

/// The way to standard output and error.
#[derive(Debug)]
pub(crate) struct Output {
    queue: mpsc::Sender<(Target, Bytes)>,
    ended: oneshot::Receiver<io::Result<()>>,
}

/// Standard input as it comes; at its end the channel ends.
pub(crate) fn input() -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::Builder::new().name("input".to_owned()).spawn(move || {
        let mut buffer = vec![0; INPUT];
        // A terminal that is gone gives an error for what a pipe calls its end.
        while let Ok(read @ 1..) =
            patient(stdio::stdin(), PollFlags::IN, || rustix::io::read(stdio::stdin(), &mut buffer))
        {
            if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

// === impl Output ===

impl Output {
    pub(crate) fn start() -> io::Result<Self> {
        let (queue, mut waiting) = mpsc::channel::<(Target, Bytes)>(QUEUE);
        let (said, ended) = oneshot::channel();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut result = Ok(());
            while let Some((target, bytes)) = waiting.blocking_recv() {
                result = match target {
                    Target::Out => write_all(stdio::stdout(), &bytes),
                    Target::Err => write_all(stdio::stderr(), &bytes),
                };
                if result.is_err() {
                    break;
                }
            }
            let _ = said.send(result);
        })?;
        Ok(Self { queue, ended })
    }

    /// Hands bytes over; false if nobody can write them any more.
    pub(crate) async fn push(&self, target: Target, bytes: Bytes) -> bool {
        self.queue.send((target, bytes)).await.is_ok()
    }

    /// Waits until all is written.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.queue);
        self.ended.await.unwrap_or(Ok(()))
    }
}

fn write_all(end: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = patient(end, PollFlags::OUT, || rustix::io::write(end, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Does what may be interrupted, or refused because somebody else has made the same terminal non-blocking.
fn patient(end: impl AsFd, ready: PollFlags, mut work: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
    loop {
        match work() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&end, ready)], None);
            }
            result => return Ok(result?),
        }
    }
}

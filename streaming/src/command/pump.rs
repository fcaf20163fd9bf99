//! From a process's output to the client.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    fs::OFlags,
    io::Errno,
    pipe::{fcntl_getpipe_size, fcntl_setpipe_size},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use crate::{chunk::LARGEST, idle::Idle, output::Output};

/// What a terminal or socket holds, at most; a pipe tells.
const HELD: usize = 1 << 20;

/// Makes a descriptor of a process ready for waiting.
pub(super) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    #[expect(deprecated, reason = "the successor is unsafe; what it asks for holds for every OwnedFd")]
    AsyncFd::with_interest(fd, interest)
}

/// Copies until the other side is closed, or until all is read that the process had written when it ended: others that
/// still hold its output are not waited for.
pub(super) async fn pump(
    fd: Option<&AsyncFd<OwnedFd>>,
    output: &mut Output,
    mut ended: watch::Receiver<bool>,
    idle: &Idle,
) {
    let Some(fd) = fd else { return };
    loop {
        tokio::select! {
            biased;
            () = over(&mut ended) => break,
            ready = fd.readable() => {
                let Ok(mut ready) = ready else { return };
                match ready.try_io(|fd| read(fd, output)) {
                    Ok(Ok(0) | Err(_)) => return,
                    Ok(Ok(_)) => {
                        idle.touch();
                        output.send().await;
                        idle.touch();
                    }
                    Err(_not_ready) => {}
                }
            }
        }
    }
    // Readiness is told by another thread and may come later than the end; the kernel itself is not late.
    let mut left = fcntl_getpipe_size(fd).unwrap_or(HELD);
    while left > 0 {
        match read(fd, output) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                left = left.saturating_sub(length);
                output.send().await;
                idle.touch();
            }
        }
    }
}

/// Resolves once the process has ended.
pub(super) async fn over(ended: &mut watch::Receiver<bool>) {
    // Whoever would tell is gone when the session is.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Reads a chunk. The end of a terminal is an error to the kernel.
fn read(fd: &AsyncFd<OwnedFd>, output: &mut Output) -> io::Result<usize> {
    let length = match rustix::io::retry_on_intr(|| rustix::io::read(fd.as_fd(), spare_capacity(output.buffer()))) {
        Err(Errno::IO) => 0,
        read => read?,
    };
    if output.took(length) && fcntl_getpipe_size(fd).is_ok_and(|size| size < LARGEST) {
        // A pipe that gives chunks of this size. One that may not grow stays as it is.
        let _ = fcntl_setpipe_size(fd, LARGEST);
    }
    Ok(length)
}

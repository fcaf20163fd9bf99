//! Running a command in a container and collecting what it says.

use std::{os::fd::OwnedFd, time::Duration};

use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::{
    Engine,
    command::{Command, Stdio},
};
use crate::{Error, Kind, Result};

/// Bytes kept of each stream; the rest is read and dropped, so that the command is never blocked.
const OUTPUT_LIMIT: usize = 16 << 20;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;

/// What a command said, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
}

impl Engine {
    /// Runs a command in a running container to its end. After the time-out the command and all that it started are
    /// killed, and the error says so; the same happens, without a word, when the caller goes away.
    pub async fn exec_sync(&self, id: &str, argv: Vec<String>, limit: Option<Duration>) -> Result<ExecOutput> {
        let (stdout, stdout_end) = pipe()?;
        let (stderr, stderr_end) = pipe()?;
        let null = std::fs::File::open("/dev/null").map_err(|error| Error::io("open /dev/null", error))?;
        let stdio = Stdio::Ends([null.into(), stdout_end, stderr_end]);
        let mut command = self.start_command(id, argv, stdio, Duration::ZERO).await?;
        let (mut stdout, mut stderr) = (Output::new(stdout)?, Output::new(stderr)?);
        let work = async {
            let code = read_until_end(&mut command, &mut stdout, &mut stderr).await?;
            stdout.take_rest();
            stderr.take_rest();
            Ok(code)
        };
        let finished = match limit {
            Some(limit) => tokio::time::timeout(limit, work).await,
            None => Ok(work.await),
        };
        match finished {
            Ok(code) => Ok(ExecOutput { stdout: stdout.kept, stderr: stderr.kept, code: code? }),
            Err(_) => {
                command.kill().await;
                let limit = limit.unwrap_or_default();
                let message = format!("command in container {id} timed out after {limit:?} and was killed");
                Err(Error::new(Kind::DeadlineExceeded, message))
            }
        }
    }
}

/// A pipe: its reading and its writing end.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Error::io("make the pipes of a command", std::io::Error::from(error)))
}

async fn read_until_end(command: &mut Command, stdout: &mut Output, stderr: &mut Output) -> Result<i32> {
    let end = command.end();
    tokio::pin!(end);
    loop {
        tokio::select! {
            code = &mut end => return code,
            result = stdout.read(), if stdout.open => result?,
            result = stderr.read(), if stderr.open => result?,
        }
    }
}

/// One output stream.
struct Output {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
    buffer: Vec<u8>,
    open: bool,
}

impl Output {
    fn new(end: OwnedFd) -> Result<Self> {
        let pipe =
            pipe::Receiver::from_owned_fd(end).map_err(|error| Error::io("read the output of a command", error))?;
        Ok(Self { pipe, kept: Vec::new(), buffer: vec![0; CHUNK], open: true })
    }

    async fn read(&mut self) -> Result<()> {
        let read = self.pipe.read(&mut self.buffer).await;
        let read = read.map_err(|error| Error::io("read the output of a command", error))?;
        self.keep(read);
        Ok(())
    }

    /// What is in the pipe now. A child that still holds the other end is not waited for. The kernel is asked, not the
    /// runtime: that one may not have been told yet of what the command wrote last.
    fn take_rest(&mut self) {
        while self.open {
            match rustix::io::read(&self.pipe, &mut self.buffer[..]) {
                Ok(read) => self.keep(read),
                Err(_) => return,
            }
        }
    }

    fn keep(&mut self, read: usize) {
        let room = OUTPUT_LIMIT - self.kept.len();
        self.kept.extend_from_slice(&self.buffer[..read.min(room)]);
        self.open = read > 0;
    }
}

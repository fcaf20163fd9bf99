//! Running a command in a container and collecting what it says.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt, net::unix::pipe};
use tripod_shim_protocol::{ExecPlan, ProcessPlan, Request};

use super::Engine;
use crate::{Error, Kind, Result, shim::Shim};

/// Bytes kept of each stream; the rest is read and dropped, so that the command is never blocked.
const OUTPUT_LIMIT: usize = 16 << 20;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;

/// How long a killed command may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(10);

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
        let container = self.index.container(id)?;
        let record = container.record();
        record.running("run a command in")?;
        if argv.is_empty() {
            return Err(Error::new(Kind::InvalidArgument, "no command was given: name the program to run"));
        }
        let pod = self.index.pod(record.pod.as_str())?;
        let launcher = self.launcher(&pod.record().config.runtime_handler)?;
        let shim = pod.shim()?;
        let plan = container.plan();
        // Unique for the shim, which may still be ending those of an earlier daemon.
        let exec = format!("{:032x}", rand::random::<u128>());
        let process = ProcessPlan { argv, terminal: false, ..plan.process.clone() };
        let request = ExecPlan { exec: exec.clone(), container: container.id.to_string(), process };

        let step = |error: rustix::io::Errno| Error::io("make the pipes of a command", std::io::Error::from(error));
        let (stdout, stdout_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(step)?;
        let (stderr, stderr_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(step)?;
        let null = std::fs::File::open("/dev/null").map_err(|error| Error::io("open /dev/null", error))?;

        let ended = shim.exec_end(&exec);
        let mut awaited = Awaited { shim: Arc::clone(&shim), exec: exec.clone(), over: false };
        launcher.exec(&shim, &plan, request, [null.into(), stdout_end, stderr_end]).await?;
        let (mut stdout, mut stderr) = (Output::new(stdout)?, Output::new(stderr)?);
        let work = async {
            let code = read_until_end(ended, &mut stdout, &mut stderr).await?;
            stdout.take_rest();
            stderr.take_rest();
            Ok(code)
        };
        let finished = match limit {
            Some(limit) => tokio::time::timeout(limit, work).await,
            None => Ok(work.await),
        };
        awaited.over = true;
        match finished {
            Ok(code) => Ok(ExecOutput { stdout: stdout.kept, stderr: stderr.kept, code: code? }),
            Err(_) => {
                kill(&shim, &exec).await;
                let limit = limit.unwrap_or_default();
                let message = format!("command in container {} timed out after {limit:?} and was killed", container.id);
                Err(Error::new(Kind::DeadlineExceeded, message))
            }
        }
    }
}

/// A command that somebody waits for. Once nobody does, nothing it says is of use, and nobody would ever end it.
struct Awaited {
    shim: Arc<Shim>,
    exec: String,
    over: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.shim.forget_exec(&self.exec);
        // Outside of a runtime the daemon itself is ending.
        if !self.over
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (shim, exec) = (Arc::clone(&self.shim), std::mem::take(&mut self.exec));
            runtime.spawn(async move { kill(&shim, &exec).await });
        }
    }
}

async fn read_until_end(
    mut ended: tokio::sync::oneshot::Receiver<i32>,
    stdout: &mut Output,
    stderr: &mut Output,
) -> Result<i32> {
    loop {
        tokio::select! {
            code = &mut ended => {
                let message = "the container or its shim ended while a command was running in it";
                return code.map_err(|_| Error::new(Kind::Unavailable, message));
            }
            result = stdout.read(), if stdout.open => result?,
            result = stderr.read(), if stderr.open => result?,
        }
    }
}

async fn kill(shim: &Arc<Shim>, exec: &str) {
    let ended = shim.exec_end(exec);
    match shim.tell(Request::KillExec { exec: exec.to_owned() }).await {
        Ok(()) => drop(tokio::time::timeout(KILL_LIMIT, ended).await),
        // It has ended by itself in the meantime.
        Err(error) => tracing::debug!(exec, %error, "a command that nobody waits for could not be killed"),
    }
    shim.forget_exec(exec);
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

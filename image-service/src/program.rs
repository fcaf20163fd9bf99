//! Programs of the operator's: with input, a limit of time, a process group of their own and a clean environment.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often, and with what pause, a program is started that is being replaced at this moment.
const BUSY: (u32, Duration) = (10, Duration::from_millis(50));

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ended {
    /// For messages.
    pub(crate) fn how(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
        }
    }
}

/// Ends what a program has started, whatever becomes of whoever waits for it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a program to its end. Of what it writes so many bytes are kept, of each stream. [`io::ErrorKind::TimedOut`] where
/// it takes too long.
pub(crate) async fn run(
    program: &Path,
    arguments: &[impl AsRef<OsStr> + Sync],
    input: &[u8],
    limit: Duration,
    keep: usize,
) -> io::Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tries = 0;
    let mut child = loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY.0 => {
                tries += 1;
                tokio::time::sleep(BUSY.1).await;
            }
            spawned => break spawned?,
        }
    };
    let mut group = Group(child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())));
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let feed = async {
            // Nobody has to read what he does not want.
            if let Some(mut pipe) = stdin.take() {
                let _ = pipe.write_all(input).await;
            }
        };
        let ((), stdout, stderr) = tokio::join!(feed, kept(stdout, keep), kept(stderr, keep));
        io::Result::Ok((child.wait().await?, stdout?, stderr?))
    };
    let result = tokio::time::timeout(limit, talk).await;
    let (status, stdout, stderr) = result.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {} s", limit.as_secs_f32()))
    })??;
    // Its number may be somebody else's by now.
    group.0 = None;
    Ok(Ended { status, stdout, stderr })
}

/// Reads a stream to its end and keeps its beginning.
async fn kept(stream: Option<impl AsyncRead + Unpin>, keep: usize) -> io::Result<Vec<u8>> {
    let Some(mut stream) = stream else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    (&mut stream).take(keep as u64).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

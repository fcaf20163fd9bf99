//! Runs `apparmor_parser`, which compiles policy and hands it to the kernel. No other program or library can.

use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::policy::Policy;

/// Longest time that it may take; it needs some tenths of a second.
const LIMIT: Duration = Duration::from_secs(30);

/// The most that is kept of what it says.
const SAYING: u64 = 4096;

/// The program with its first arguments.
#[derive(Debug, Clone)]
pub struct Parser {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

/// Why a profile was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// the program cannot be run
    #[error("run {program}: {source}")]
    Run { program: PathBuf, source: std::io::Error },
    /// it did not end in time
    #[error("{program} did not end within {seconds} s and was killed")]
    TimedOut { program: PathBuf, seconds: u64 },
    /// it refused
    #[error("{program} failed ({status}): {said}")]
    Refused { program: PathBuf, status: std::process::ExitStatus, said: String },
}

impl Parser {
    /// The first of the usual places, if it is installed.
    pub fn find() -> Option<Self> {
        let usual = ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];
        let program = usual.map(PathBuf::from).into_iter().find(|program| program.is_file())?;
        Some(Self { program, arguments: Vec::new() })
    }

    /// Loads a profile, or replaces the one of that name.
    pub async fn load(&self, policy: &Policy) -> Result<(), Failed> {
        self.load_within(LIMIT, policy).await
    }

    pub(super) async fn load_within(&self, limit: Duration, policy: &Policy) -> Result<(), Failed> {
        let program = || self.program.clone();
        let failed = |source| Failed::Run { program: program(), source };
        let mut child = self.command().spawn().map_err(failed)?;
        let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let outcome = tokio::time::timeout(limit, converse(&mut child, &policy.text)).await;
        // It has not been waited for, so the number is still its own.
        if let Some(group) = group.filter(|_| outcome.is_err()) {
            let _ = kill_process_group(group, Signal::KILL);
            drop(tokio::time::timeout(Duration::from_secs(5), child.wait()).await);
        }
        match outcome {
            Err(_) => Err(Failed::TimedOut { program: program(), seconds: limit.as_secs() }),
            Ok(Err(source)) => Err(failed(source)),
            Ok(Ok((status, _))) if status.success() => Ok(()),
            Ok(Ok((status, said))) => Err(Failed::Refused { program: program(), status, said }),
        }
    }

    /// Replaces, reads no cache and writes none. The profile comes by standard input.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(["--replace", "--skip-cache", "--quiet"])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// Says it all and hears it out.
async fn converse(child: &mut Child, text: &str) -> std::io::Result<(std::process::ExitStatus, String)> {
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever refuses may do so without reading; its words count.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(SAYING).read_to_end(&mut said).await?;
    }
    let status = child.wait().await?;
    Ok((status, String::from_utf8_lossy(&said).trim().replace('\n', "; ")))
}

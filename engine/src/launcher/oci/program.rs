//! Calls of a runtime by the daemon: with a limit, in a process group of their own, with a clean environment.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::{Error, Kind, Result};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Letters that are told of what a runtime says.
const MAX_SAID: usize = 2000;

/// A runtime.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    args: Vec<String>,
    root: PathBuf,
    limit: Duration,
}

impl Program {
    pub(super) fn new(path: PathBuf, args: Vec<String>, root: PathBuf, limit: Duration) -> Self {
        Self { path, args, root, limit }
    }

    /// Whether it can be run at all, as far as its file tells.
    pub(super) fn check(&self) -> Result<()> {
        let path = self.path.display();
        let refused = |what: String| Err(Error::new(Kind::FailedPrecondition, what));
        match std::fs::metadata(&self.path) {
            Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => Ok(()),
            Ok(_) => refused(format!("{path} is no program: set runtimes.NAME.path")),
            Err(error) => refused(format!("{path}: {error}: install it, or set runtimes.NAME.path")),
        }
    }

    /// Runs a command of it to its end and gives what it wrote to standard output.
    pub(super) async fn run(&self, command: &[&str]) -> Result<Vec<u8>> {
        let what = || format!("{} {}", self.path.display(), command.join(" "));
        let mut call = Command::new(&self.path);
        call.args(&self.args).args([OsStr::new("--root"), self.root.as_os_str()]).args(command);
        call.env_clear().env("PATH", PATH).current_dir("/").process_group(0).kill_on_drop(true);
        call.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = call.spawn().map_err(|error| Error::io(format!("run {}", what()), error))?;
        let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        match tokio::time::timeout(self.limit, child.wait_with_output()).await {
            Ok(Ok(Output { status, stdout, .. })) if status.success() => Ok(stdout),
            Ok(Ok(Output { status, stderr, .. })) => {
                let said: String = String::from_utf8_lossy(&stderr).trim().chars().take(MAX_SAID).collect();
                Err(Error::new(Kind::Internal, format!("{}: {status}: {said}", what())))
            }
            Ok(Err(error)) => Err(Error::io(format!("wait for {}", what()), error)),
            Err(_) => {
                // Dropping has killed the program itself; what it has started is in its group.
                let _ = group.map(|group| kill_process_group(group, Signal::KILL));
                let message = format!("{} did not end within {} s", what(), self.limit.as_secs_f32());
                Err(Error::new(Kind::DeadlineExceeded, message))
            }
        }
    }
}

//! A command in a running container, from its start to its end. Nobody is left behind: a command that nobody waits for
//! any more is killed with all that it started.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tripod_shim_protocol::{ExecPlan, ProcessPlan, Request};

use super::Engine;
use crate::{Error, Kind, Result, isolator::set_default, shim::Shim};

/// How long a killed command may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Where the standard streams of a command are.
#[derive(Debug)]
pub(super) enum Stdio {
    /// Its ends of standard input, output and error.
    Ends([OwnedFd; 3]),
    /// A terminal of its own.
    Terminal,
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Command {
    /// The master of its terminal, if it has one.
    pub master: Option<OwnedFd>,
    shim: Arc<Shim>,
    name: String,
    ended: oneshot::Receiver<i32>,
    /// How long it may go on when nobody waits for it any more.
    grace: Duration,
    over: bool,
}

impl Engine {
    /// Starts a command in a running container, as the container's own process in all but its arguments.
    pub(super) async fn start_command(
        &self,
        id: &str,
        argv: Vec<String>,
        stdio: Stdio,
        grace: Duration,
    ) -> Result<Command> {
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
        let name = format!("{:032x}", rand::random::<u128>());
        let (terminal, ends) = match stdio {
            Stdio::Ends(ends) => (false, Vec::from(ends)),
            Stdio::Terminal => (true, Vec::new()),
        };
        let mut process = ProcessPlan { argv, terminal, ..plan.process.clone() };
        if terminal {
            set_default(&mut process.env, "TERM", "xterm");
        }
        let request = ExecPlan { exec: name.clone(), container: container.id.to_string(), process };
        let ended = shim.exec_end(&name);
        let mut command = Command { master: None, shim: Arc::clone(&shim), name, ended, grace, over: false };
        command.master = launcher.exec(&shim, request, ends).await?;
        Ok(command)
    }
}

impl Command {
    /// Waits for its end: the exit code; 128 + n after signal n.
    pub async fn end(&mut self) -> Result<i32> {
        let ended = (&mut self.ended).await;
        self.over = true;
        ended.map_err(|_| {
            Error::new(Kind::Unavailable, "the container or its shim ended while a command was running in it")
        })
    }

    /// Kills it with all that it started, and waits a while for its end.
    pub async fn kill(mut self) {
        self.over = true;
        kill(&self.shim, &self.name, &mut self.ended).await;
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        // Outside of a runtime the daemon itself is ending, and the shim kills the commands of a daemon that is gone.
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| !self.over);
        let Some(runtime) = runtime else { return self.shim.forget_exec(&self.name) };
        let (shim, name, grace) = (Arc::clone(&self.shim), std::mem::take(&mut self.name), self.grace);
        let mut ended = std::mem::replace(&mut self.ended, oneshot::channel().1);
        runtime.spawn(async move {
            if tokio::time::timeout(grace, &mut ended).await.is_err() {
                kill(&shim, &name, &mut ended).await;
            }
            shim.forget_exec(&name);
        });
    }
}

async fn kill(shim: &Shim, name: &str, ended: &mut oneshot::Receiver<i32>) {
    match shim.tell(Request::KillExec { exec: name.to_owned() }).await {
        Ok(()) => drop(tokio::time::timeout(KILL_LIMIT, ended).await),
        // It has ended by itself in the meantime.
        Err(error) => tracing::debug!(exec = name, %error, "a command that nobody waits for could not be killed"),
    }
}

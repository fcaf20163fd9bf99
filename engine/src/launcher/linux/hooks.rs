//! What hooks of the built-in launcher's containers are shown, and those that come after the end of a container.
//!
//! A bundle is there from before the start until the hooks after the end have run: while it is there, they are still to
//! come, whatever became of the daemon.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use serde::Deserialize;
use serde_json::Value;
use tripod_shim_protocol::{Hook, HookStage, HookState, HookedPlan, LaunchPlan, UserMapping, oci::bundle};
use tripod_sys::{attend::attend, spawn};

use crate::{Error, Kind, Map, Result, plugin::Known};

/// The namespaces of the daemon's that a shim has left.
const HOME: [&str; 3] = ["net", "ipc", "uts"];

/// The folders of containers with hooks.
#[derive(Debug)]
pub(super) struct Bundles {
    folder: PathBuf,
}

/// What is read back of a bundle.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    annotations: Map,
    hooks: BTreeMap<String, Vec<Hook>>,
}

// === impl Bundles ===

impl Bundles {
    pub(super) fn new(state: &Path) -> Self {
        Self { folder: state.join("bundles") }
    }

    /// The folder of a container.
    pub(super) fn of(&self, container: &str) -> PathBuf {
        self.folder.join(container)
    }

    /// Makes the bundle of a container, and the shim's plan; adds the daemon's namespaces to what travels with that.
    pub(super) fn make(
        &self,
        plan: &LaunchPlan,
        spec: &Value,
        user: Option<UserMapping>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<HookedPlan> {
        let bundle = self.of(&plan.container);
        super::super::bundle::write(&bundle, spec, user)
            .map_err(|error| Error::io(format!("write the bundle {}", bundle.display()), error))?;
        for kind in HOME {
            let file = std::fs::File::open(format!("/proc/self/ns/{kind}"));
            fds.push(file.map_err(|error| Error::io(format!("open the daemon's {kind} namespace"), error))?.into());
        }
        let annotations = Config::deserialize(spec).map(|config| config.annotations);
        let annotations = annotations.map_err(|error| Error::with(Kind::Internal, "read annotations", error))?;
        Ok(HookedPlan { plan: plan.clone(), bundle, annotations })
    }

    /// Runs the hooks that come after the end of a container, and removes its bundle. Idempotent.
    pub(super) async fn remove(&self, container: &str) -> Result<()> {
        let (bundle, id) = (self.of(container), container.to_owned());
        let failed = format!("remove the bundle {}", bundle.display());
        // On a thread of its own: when the daemon ends, what the thread has started ends, too.
        let work = move || {
            if !bundle.exists() {
                return Ok(());
            }
            run_last(&bundle, &id);
            std::fs::remove_dir_all(&bundle)
        };
        let removed = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
        removed.map_err(|error| Error::io(failed, error))
    }

    /// Ends what is left of containers that are not known.
    pub(super) async fn recover(&self, known: &Known) -> Result<()> {
        let found = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = found.filter_map(|entry| entry.file_name().into_string().ok());
        for name in names.filter(|name| !known.containers.contains(name.as_str())) {
            tracing::warn!(container = name, "removing the bundle of an unknown container");
            self.remove(&name).await?;
        }
        Ok(())
    }
}

/// Runs the hooks after the end. None keeps another from running, or the container from being removed.
fn run_last(bundle: &Path, container: &str) {
    let stage = HookStage::Poststop;
    // A bundle without it was cut off while it was made, and no hook has seen it.
    let Ok(text) = std::fs::read(bundle.join(bundle::CONFIG)) else { return };
    let config: Config = match serde_json::from_slice(&text) {
        Ok(config) => config,
        Err(error) => return tracing::error!(container, %error, "the bundle is unreadable: no hook after the end runs"),
    };
    let state = HookState::new(stage, container, None, bundle, &config.annotations);
    for hook in config.hooks.get(stage.name()).into_iter().flatten() {
        let outcome = serde_json::to_vec(&state)
            .map_err(io::Error::other)
            .and_then(|told| run(hook, &told))
            .map_err(|error| error.to_string())
            .and_then(|(code, said)| hook.judge(code, &said));
        if let Err(problem) = outcome {
            tracing::warn!(container, "{}: {problem}", hook.step(stage));
        }
    }
}

/// Runs a hook: its exit code, `None` if it was killed for its slowness, and the end of what it has said.
fn run(hook: &Hook, told: &[u8]) -> io::Result<(Option<i32>, Vec<u8>)> {
    let (stdin, feed) = pipe_with(PipeFlags::CLOEXEC)?;
    let (hear, output) = pipe_with(PipeFlags::CLOEXEC)?;
    let argv = hook.argv();
    let mut command = Command::new(&hook.path);
    command.arg0(argv.first().map_or("", String::as_str)).args(argv.iter().skip(1)).env_clear().current_dir("/");
    command.envs(hook.env.iter().filter_map(|entry| entry.split_once('='))).process_group(0);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(output.try_clone()?)).stderr(Stdio::from(output));
    spawn::end_with_thread(&mut command);
    let mut child = command.spawn()?;
    // It holds the child's ends.
    drop(command);
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    let attended = pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| attend(pidfd.as_fd(), feed, hear, told, hook.limit()));
    let ended = attended.as_ref().is_ok_and(|attended| attended.ended);
    if !ended {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.kill();
    }
    let status = child.wait()?;
    let code = status.code().or_else(|| status.signal().map(|number| 128 + number)).unwrap_or(255);
    Ok((ended.then_some(code), attended?.said))
}

#[cfg(test)]
mod tests;

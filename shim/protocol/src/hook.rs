//! Programs of the host that take part in the life of a container.

use std::{collections::BTreeMap, path::Path, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::LaunchPlan;

/// The version of the OCI runtime specification by which hooks are run and told of their container.
pub const HOOKS_VERSION: &str = "1.2.0";

/// How long a hook may take that has no limit of its own.
const LIMIT: Duration = Duration::from_secs(60);

/// A hook of the OCI runtime specification: it gets the container's state as JSON on its standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program, on the host.
    pub path: PathBuf,
    /// All of its arguments, the first being its name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment, as `NAME=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds that it may take; `None` is no limit of its own.
    #[serde(default)]
    pub timeout: Option<u32>,
    /// When it runs.
    #[serde(default)]
    pub stages: Vec<HookStage>,
}

/// Moments in the life of a container, with the names of the OCI runtime specification.
#[allow(missing_docs, reason = "the names are the specification's")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookStage {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// A launch plan with hooks that the shim runs, all but those of the last stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookedPlan {
    /// The plan.
    pub plan: LaunchPlan,
    /// A folder with `config.json` and the empty folder `rootfs`, where hooks before the start see the root filesystem.
    pub bundle: PathBuf,
    /// The container's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What a hook is told of its container.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState<'a> {
    oci_version: &'a str,
    /// Container ID.
    pub id: &'a str,
    status: &'a str,
    /// The container's first process, as whoever runs the hook sees it; `None` when there is none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The folder of [`HookedPlan::bundle`].
    pub bundle: &'a Path,
    /// The container's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

// === impl Hook ===

impl Hook {
    /// How long it may take.
    pub fn limit(&self) -> Duration {
        self.timeout.map_or(LIMIT, |seconds| Duration::from_secs(seconds.into()))
    }

    /// Its arguments with a name in front, which is its path if it has none.
    pub fn argv(&self) -> Vec<String> {
        if self.args.is_empty() { vec![self.path.to_string_lossy().into_owned()] } else { self.args.clone() }
    }

    /// What is run, for messages.
    pub fn step(&self, stage: HookStage) -> String {
        format!("run hook {} ({})", self.path.display(), stage.name())
    }

    /// Whether it has done what it is for: an exit code of 0, where `None` is a hook that had to be killed for its
    /// slowness. `said` is the end of what it has written.
    pub fn judge(&self, code: Option<i32>, said: &[u8]) -> Result<(), String> {
        let what = match code {
            Some(0) => return Ok(()),
            Some(code) => format!("ended with code {code}"),
            None => format!("did not end within {} s and was killed", self.limit().as_secs()),
        };
        let said = String::from_utf8_lossy(said);
        match said.trim() {
            "" => Err(what),
            said => Err(format!("{what}: {said}")),
        }
    }
}

/// The hooks of a stage, in their order.
pub fn at(hooks: &[Hook], stage: HookStage) -> impl Iterator<Item = &Hook> {
    hooks.iter().filter(move |hook| hook.stages.contains(&stage))
}

// === impl HookStage ===

impl HookStage {
    /// As the specification spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The status that a container has then.
    fn status(self) -> &'static str {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer => "creating",
            Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }
}

// === impl HookedPlan ===

impl HookedPlan {
    /// Whether there are hooks of any of these stages.
    pub fn has(&self, stages: &[HookStage]) -> bool {
        stages.iter().any(|stage| at(&self.plan.hooks, *stage).next().is_some())
    }

    /// How long all of them may take.
    pub fn limit(&self) -> Duration {
        self.plan.hooks.iter().flat_map(|hook| hook.stages.iter().map(|_| hook.limit())).sum()
    }

    /// What hooks of a stage are told.
    pub fn state(&self, stage: HookStage, pid: i32) -> HookState<'_> {
        HookState::new(stage, &self.plan.container, Some(pid), &self.bundle, &self.annotations)
    }
}

// === impl HookState ===

impl<'a> HookState<'a> {
    /// The state at a stage.
    pub fn new(
        stage: HookStage,
        id: &'a str,
        pid: Option<i32>,
        bundle: &'a Path,
        annotations: &'a BTreeMap<String, String>,
    ) -> Self {
        Self { oci_version: HOOKS_VERSION, id, status: stage.status(), pid, bundle, annotations }
    }
}

#[cfg(test)]
mod tests;

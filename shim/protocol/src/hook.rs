//! Programs of the host that take part in the life of a container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

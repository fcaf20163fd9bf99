//! Settings of RuntimeClass handlers: which launcher starts the containers of a pod that asks for one by name.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{LimitsConfig, Wrong};

/// One call of a runtime may take so long at most: a start is two of them, and has two minutes.
const MAX_SECONDS: u64 = 55;

/// A handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The launcher.
    #[serde(rename = "type")]
    pub kind: RuntimeKind,
    /// Program of an OCI runtime.
    #[serde(skip_serializing_if = "path_is_empty")]
    pub path: PathBuf,
    /// Its options before the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Seconds that one call of it may take.
    pub timeout_seconds: u64,
    /// Limits of its containers and pods, on top of those of all.
    #[serde(skip_serializing_if = "LimitsConfig::is_empty")]
    pub limits: LimitsConfig,
}

/// Launchers that a handler can have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// The built-in one.
    #[default]
    Linux,
    /// A program with the command line of an OCI runtime.
    Oci,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            kind: RuntimeKind::default(),
            path: PathBuf::new(),
            args: Vec::new(),
            timeout_seconds: 30,
            limits: LimitsConfig::default(),
        }
    }
}

fn path_is_empty(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

/// Finds what cannot work.
pub(super) fn check(default: &str, runtimes: &BTreeMap<String, RuntimeConfig>) -> Result<(), Wrong> {
    let wrong = |setting: &str, problem: String| Err(Wrong::new(setting, problem));
    if !default.is_empty() && !runtimes.contains_key(default) {
        let known: Vec<&str> = runtimes.keys().map(String::as_str).collect();
        return wrong("default_runtime", format!("{default:?} is not among the runtimes {known:?}"));
    }
    for (name, runtime) in runtimes {
        // As names of Kubernetes' objects are; a handler names a folder.
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            return wrong("runtimes", format!("{name:?} is no name of a handler: a-z, 0-9 and -, at most 63"));
        }
        let own = |key: &str| format!("runtimes.{name}.{key}");
        let oci = runtime.kind == RuntimeKind::Oci;
        if oci && !runtime.path.is_absolute() {
            return wrong(&own("path"), format!("{:?} is not an absolute path", runtime.path));
        }
        if !oci && (!runtime.path.as_os_str().is_empty() || !runtime.args.is_empty()) {
            return wrong(&own("path"), "path and args are for type = \"oci\"".to_owned());
        }
        if !(1..=MAX_SECONDS).contains(&runtime.timeout_seconds) {
            let seconds = runtime.timeout_seconds;
            return wrong(&own("timeout_seconds"), format!("{seconds} is not between 1 and {MAX_SECONDS}"));
        }
    }
    Ok(())
}

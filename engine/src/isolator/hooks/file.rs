//! One file: a hook, when it applies, and at which stages.

use std::{collections::BTreeMap, path::PathBuf};

use regex::Regex;
use serde::Deserialize;
use tripod_shim_protocol::{Hook, HookStage};

const VERSION: &str = "1.0.0";

/// What conditions can ask about a container.
#[derive(Debug, Clone, Default)]
pub(super) struct Container {
    pub(super) annotations: crate::Map,
    /// Its program.
    pub(super) command: String,
    /// It has volumes from the host.
    pub(super) bind_mounts: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct File {
    version: String,
    hook: Program,
    when: When,
    stages: Vec<HookStage>,
}

#[derive(Debug, Deserialize)]
struct Program {
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<u32>,
}

/// Conditions; all that are given must hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct When {
    always: Option<bool>,
    has_bind_mounts: Option<bool>,
    /// Each pair must match an annotation of the container's.
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// One of them must match the program.
    #[serde(default)]
    commands: Vec<String>,
}

// === impl File ===

impl File {
    pub(super) fn parse(text: &[u8]) -> Result<File, String> {
        let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("version: {:?} is not {VERSION}", file.version));
        }
        if !file.hook.path.is_absolute() {
            return Err(format!("hook.path: {} is not an absolute path", file.hook.path.display()));
        }
        if file.hook.timeout == Some(0) {
            return Err("hook.timeout: must be at least 1".to_owned());
        }
        if file.stages.is_empty() {
            return Err("stages: none is given".to_owned());
        }
        Ok(file)
    }

    /// Whether it is meant for this container. A condition that says "false" is one that no container meets.
    pub(super) fn applies(&self, container: &Container) -> Result<bool, String> {
        let When { always, has_bind_mounts, annotations, commands } = &self.when;
        let mut met = vec![*always, has_bind_mounts.map(|wanted| wanted && container.bind_mounts)];
        for (key, value) in annotations {
            let (key, value) = (pattern("annotations", key)?, pattern("annotations", value)?);
            let matches = |(k, v): (&String, &String)| key.is_match(k) && value.is_match(v);
            met.push(Some(container.annotations.iter().any(matches)));
        }
        if !commands.is_empty() {
            let patterns = commands.iter().map(|text| pattern("commands", text)).collect::<Result<Vec<_>, _>>()?;
            met.push(Some(patterns.iter().any(|pattern| pattern.is_match(&container.command))));
        }
        let met: Vec<bool> = met.into_iter().flatten().collect();
        Ok(!met.is_empty() && met.into_iter().all(|met| met))
    }

    pub(super) fn into_hook(self) -> Hook {
        let Program { path, args, env, timeout } = self.hook;
        let mut stages = self.stages;
        stages.sort_unstable();
        stages.dedup();
        Hook { path, args, env, timeout, stages }
    }
}

fn pattern(field: &str, text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("when.{field}: {error}"))
}

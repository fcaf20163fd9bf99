//! Limits for containers and pods that ask for none: `[limits]` for all, `[runtimes.NAME.limits]` for those of a
//! RuntimeClass handler, whose settings win one by one.
//!
//! What cannot work is found when the settings are read, not with the first container.

mod bound;

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};
use tripod_engine::{
    ByHandler, Limits, Map,
    isolator::{Sysctls, capability},
};
use tripod_shim_protocol::{Capability, Resource, Rlimit};

use super::{Config, Wrong, dump::join};

pub use bound::{Bound, SysctlValue, Ulimit};

/// The most processes and threads that the kernel can count (`PID_MAX_LIMIT`).
const MAX_PIDS: u64 = 1 << 22;

/// The most open files of a process unless the node's sysctl `fs.nr_open` says otherwise.
const OPEN_FILES: u64 = 1 << 20;

/// Bytes of disk; folders and mount points of a container take some by themselves.
const MIN_DISK: u64 = 1 << 20;

/// Seconds between two looks at the disk, and which there may be.
const DISK_SECONDS: u64 = 10;
const DISK_INTERVAL: RangeInclusive<u64> = 1..=3600;

/// Limits as they are written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Names of the capabilities of an ordinary container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Processes and threads of a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Bound>,
    /// Bytes that the writable layer of a container may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<Bound>,
    /// How often that is looked at; one for the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_interval_seconds: Option<u64>,
    /// Resource limits of processes.
    pub ulimits: BTreeMap<Resource, Ulimit>,
    /// Sysctls of pods.
    pub sysctls: BTreeMap<String, SysctlValue>,
}

/// The same, understood.
#[derive(Debug, Clone, Default)]
struct Understood {
    capabilities: Option<Vec<Capability>>,
    pids: Option<Bound>,
    disk_bytes: Option<Bound>,
    rlimits: BTreeMap<Resource, Rlimit>,
    sysctls: Map,
}

impl LimitsConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `at` is the name of the section.
    fn understand(&self, at: &str, open_files: u64) -> Result<Understood, Wrong> {
        let wrong = |key: &str, problem: String| Wrong::new(join(at, key), problem);
        let mut understood = Understood { pids: self.pids, disk_bytes: self.disk_bytes, ..Understood::default() };
        for (resource, ulimit) in &self.ulimits {
            let key = format!("ulimits.{}", name(*resource));
            let rlimit = ulimit.rlimit(*resource, open_files).map_err(|problem| wrong(&key, problem))?;
            understood.rlimits.insert(*resource, rlimit);
        }
        for (sysctl, value) in &self.sysctls {
            let dotted = Sysctls::check(sysctl, &value.0).map_err(|error| wrong("sysctls", error.to_string()))?;
            understood.sysctls.insert(dotted, value.0.clone());
        }
        let number = |name: &String| {
            let problem = || format!("{name:?} is no Linux capability; give names such as NET_RAW or CAP_NET_RAW");
            capability::parse(name).ok_or_else(|| wrong("capabilities", problem()))
        };
        let numbers = self.capabilities.as_ref().map(|names| names.iter().map(number).collect::<Result<_, _>>());
        understood.capabilities = numbers.transpose()?;
        if let Some(Bound::At(pids)) = self.pids
            && !(1..=MAX_PIDS).contains(&pids)
        {
            return Err(wrong("pids", format!("{pids} is not between 1 and {MAX_PIDS}, nor \"unlimited\"")));
        }
        if let Some(Bound::At(bytes)) = self.disk_bytes
            && bytes < MIN_DISK
        {
            return Err(wrong("disk_bytes", format!("{bytes} is less than {MIN_DISK}, with which nothing can run")));
        }
        if let Some(seconds) = self.disk_interval_seconds.filter(|seconds| !DISK_INTERVAL.contains(seconds)) {
            let (least, most) = DISK_INTERVAL.into_inner();
            return Err(wrong("disk_interval_seconds", format!("{seconds} is not between {least} and {most}")));
        }
        Ok(understood)
    }
}

impl Understood {
    /// What a handler has whose own settings these are.
    fn over(&self, common: &Self) -> Self {
        let mut whole = common.clone();
        whole.capabilities = self.capabilities.clone().or(whole.capabilities);
        whole.pids = self.pids.or(whole.pids);
        whole.disk_bytes = self.disk_bytes.or(whole.disk_bytes);
        whole.rlimits.extend(self.rlimits.clone());
        whole.sysctls.extend(self.sysctls.clone());
        whole
    }

    fn limits(self) -> Limits {
        Limits {
            rlimits: self.rlimits.into_values().collect(),
            sysctls: self.sysctls,
            capabilities: self.capabilities,
            pids: self.pids.and_then(Bound::number),
            disk_bytes: self.disk_bytes.and_then(Bound::number),
        }
    }
}

impl Config {
    /// What each handler's containers and pods get that ask for nothing else.
    pub(crate) fn handler_limits(&self) -> Result<ByHandler<Limits>, Wrong> {
        let open_files = open_files();
        let common = self.limits.understand("limits", open_files)?;
        let mut own = BTreeMap::new();
        for (handler, runtime) in &self.runtimes {
            let at = format!("runtimes.{handler}.limits");
            if runtime.limits.disk_interval_seconds.is_some() {
                let problem = "there is one interval for all handlers; set limits.disk_interval_seconds";
                return Err(Wrong::new(join(&at, "disk_interval_seconds"), problem));
            }
            let limits = runtime.limits.understand(&at, open_files)?;
            own.insert(handler.clone(), limits.over(&common).limits());
        }
        // Pods that name no handler have the default one.
        if let Some(default) = own.get(&self.default_runtime).cloned() {
            own.insert(String::new(), default);
        }
        Ok(ByHandler::new(common.limits(), own))
    }
}

impl LimitsConfig {
    /// How often the disk is looked at.
    pub(crate) fn disk_interval(&self) -> Duration {
        Duration::from_secs(self.disk_interval_seconds.unwrap_or(DISK_SECONDS))
    }
}

/// The most open files that this node's kernel lets a process have.
fn open_files() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(OPEN_FILES)
}

/// A resource as the settings name it.
fn name(resource: Resource) -> String {
    format!("{resource:?}").to_lowercase()
}

#[cfg(test)]
mod tests;

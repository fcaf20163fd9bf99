//! Cgroups: the limits of a container, what it uses, and the means to kill all of it.
//!
//! Works with v1 hierarchies, the unified (v2) tree, and hosts that have both; which it is, is found out once. A
//! container has one directory in every tree: below kubelet's parent, which is kubelet's to make and to remove, or
//! below tripod's own `/BASE` for pods that name none. There is no level for the pod: on v1 each costs half a
//! millisecond.

mod check;
mod create;
mod devices;
mod error;
mod file;
mod host;
mod kill;
mod parent;
mod settings;
mod systemd;
mod update;
mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tripod_shim_protocol::{CgroupPlan, LaunchPlan, Resources};

use crate::{
    ByHandler, ContainerConfig, ContainerId, Error, Kind, Limits, PodId, Result,
    plugin::{ContainerContext, Isolator, IsolatorStatus, Known, Limitation, PodContext, PodSetup},
    usage::Usage,
};

use error::CgroupError;
pub use update::merge as merge_limits;

use host::{Controller, Host, Version};

/// How long the end of processes is waited for that are in the way.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// Settings of cgroups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CgroupConfig {
    /// Cgroup for pods that name no parent; with driver `systemd` the slice of this name.
    pub base: String,
    /// Who makes cgroups.
    pub driver: CgroupDriver,
    /// v2: when memory runs out, the kernel ends a container as a whole, unless a request says otherwise.
    pub oom_group: bool,
}

/// Who makes the cgroups that a pod lives in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// Tripod, below a path that kubelet names.
    #[default]
    Cgroupfs,
    /// systemd, a scope for each pod in the slice that kubelet names.
    Systemd,
}

/// The cgroups of this host, and tripod's own place in them.
#[derive(Debug)]
pub struct Cgroups {
    host: Host,
    base: String,
    driver: CgroupDriver,
    oom_group: bool,
    /// Processes of a container whose request says nothing of them.
    pids: ByHandler<Option<u64>>,
}

impl Default for CgroupConfig {
    fn default() -> Self {
        Self { base: "tripod".to_owned(), driver: CgroupDriver::default(), oom_group: true }
    }
}

impl Cgroups {
    /// Finds out what the host has, and whether the settings can work there. May block for a moment.
    pub fn discover(config: &CgroupConfig) -> Result<Self> {
        Self::with(Host::discover().map_err(CgroupError::outward)?, config).map_err(CgroupError::outward)
    }

    fn with(host: Host, config: &CgroupConfig) -> Result<Self, CgroupError> {
        let CgroupConfig { base, driver, oom_group } = config.clone();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if base.is_empty() || base.len() > 100 || !base.bytes().all(plain) {
            return Err(CgroupError::Base(base));
        }
        if driver == CgroupDriver::Systemd {
            if !host.unified() {
                return Err(CgroupError::Legacy);
            }
            systemd::slice(&format!("{base}.slice"))?;
            systemd::reach()?;
        }
        Ok(Self { host, base, driver, oom_group, pids: ByHandler::default() })
    }

    /// With the operator's limits.
    pub fn with_limits(self, limits: &ByHandler<Limits>) -> Result<Self> {
        let pids = limits.map(|limits| limits.pids);
        if pids.iter().any(Option::is_some) && self.host.tree(Controller::Pids).is_none() {
            let missing = CgroupError::Missing { controller: Controller::Pids, what: "limits.pids in the settings" };
            return Err(missing.outward());
        }
        Ok(Self { pids, ..self })
    }

    /// Everything is in the unified (v2) tree.
    pub fn unified(&self) -> bool {
        self.host.unified()
    }

    /// Makes a container's cgroups with all limits set. When it fails nothing of them is left. Takes a few dozen
    /// system calls and never blocks.
    pub fn create(&self, plan: &CgroupPlan, resources: &Resources) -> Result<()> {
        create::create(&self.host, plan, resources, self.oom_group).map_err(CgroupError::outward)
    }

    /// Kills every process in a container's cgroups and waits for their end, at most ten seconds.
    pub async fn kill(&self, plan: &CgroupPlan) -> Result<()> {
        kill::kill(&self.host, plan).await.map_err(CgroupError::outward)
    }

    /// Removes a container's cgroups, killing what still runs there, and tripod's own parents once they are empty.
    /// Idempotent.
    pub async fn remove(&self, plan: &CgroupPlan) -> Result<()> {
        let result = kill::remove(&self.host, &plan.dirs).await;
        let own = |dir: &&PathBuf| self.bases().any(|base| dir.parent() == Some(&base));
        for dir in plan.dirs.iter().filter(own) {
            // Fails as long as there is another container, which is what is wanted.
            let _ = dir.parent().map(fs::remove_dir);
        }
        result.map_err(CgroupError::outward)
    }

    /// The directories of a container.
    fn plan(&self, parent: &Path, container: &ContainerId, resources: &Resources) -> CgroupPlan {
        let own = Path::new(&self.base);
        let unified = self.host.unified();
        let dir = |tree: &host::Tree| match tree.version {
            // Beside v1 hierarchies kubelet does not use the unified tree, so it would leave a parent there for ever.
            // One more tree to join takes time, so only those do who have huge pages.
            Version::V2 if !unified => {
                let some = resources.hugepages.values().any(|limit| *limit > 0);
                some.then(|| tree.mount.join(own).join(container))
            }
            _ => Some(tree.mount.join(parent).join(container)),
        };
        CgroupPlan { dirs: self.host.trees.iter().filter_map(dir).collect(), unified }
    }

    /// Tripod's own cgroup in every tree; none where systemd makes and removes it.
    fn bases(&self) -> impl Iterator<Item = PathBuf> {
        let trees = self.host.trees.iter().filter(|_| self.driver == CgroupDriver::Cgroupfs);
        trees.map(|tree| tree.mount.join(&self.base))
    }

    /// The containers' cgroups below tripod's own.
    fn own(&self) -> Vec<PathBuf> {
        match self.driver {
            CgroupDriver::Cgroupfs => self.bases().flat_map(|base| file::children(&base).unwrap_or_default()).collect(),
            CgroupDriver::Systemd => {
                let slice = systemd::slice(&self.slice(None)).unwrap_or_default();
                self.host.trees.iter().flat_map(|tree| systemd::containers(&tree.mount.join(&slice))).collect()
            }
        }
    }

    /// The slice of a pod, by its name.
    fn slice(&self, parent: Option<&Path>) -> String {
        let name = parent.and_then(Path::file_name).and_then(|name| name.to_str());
        name.map_or_else(|| format!("{}.slice", self.base), ToOwned::to_owned)
    }

    /// Where the cgroups of a pod's containers are, below the roots of the trees.
    fn place(&self, pod: PodContext<'_>) -> Result<PathBuf, CgroupError> {
        let parent = parent::parent(self.driver, pod.config.cgroup_parent.as_deref())?;
        match self.driver {
            CgroupDriver::Cgroupfs => Ok(parent.unwrap_or_else(|| self.base.clone().into())),
            CgroupDriver::Systemd => {
                let slice = systemd::slice(&self.slice(parent.as_deref()))?;
                Ok(slice.join(systemd::scope(&self.base, pod.id)))
            }
        }
    }

    /// Removes cgroups with all that runs in them, and tripod's own if it is empty then.
    async fn remove_all(&self, dirs: &[PathBuf]) -> Result<()> {
        let mut result = Ok(());
        for dir in dirs {
            let killed = kill::kill_below(&self.host, dir, LEFTOVERS).await;
            result = result.and(killed);
        }
        result = result.and(kill::remove(&self.host, dirs).await);
        for base in self.bases() {
            let _ = fs::remove_dir(base);
        }
        result.map_err(CgroupError::outward)
    }

    /// How often the kernel killed a process of a container for lack of memory.
    fn oom_kills(&self, plan: &CgroupPlan) -> Option<u64> {
        let (dir, version) = self.host.dir(&plan.dirs, Controller::Memory)?;
        usage::oom_kills(dir, version)
    }

    /// What programs make of it is theirs, but who reads the status should know.
    fn failed_forks(&self, plan: &LaunchPlan) -> Option<Limitation> {
        let (dir, _) = self.host.dir(&plan.cgroups.dirs, Controller::Pids)?;
        let times = usage::failed_forks(dir).filter(|times| *times > 0)?;
        let message = match plan.resources.pids_limit {
            Some(limit) if limit > 0 => {
                format!("new processes or threads were refused {times} times; the limit is {limit}")
            }
            _ => format!("new processes or threads were refused {times} times because the pod had too many"),
        };
        Some(Limitation { reason: None, message })
    }
}

#[async_trait]
impl Isolator for Cgroups {
    fn name(&self) -> &'static str {
        "cgroups"
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        let known = |dir: &PathBuf| {
            let name = dir.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| known.containers.contains(name))
        };
        let orphans: Vec<_> = self.own().into_iter().filter(|dir| !known(dir)).collect();
        for dir in &orphans {
            tracing::warn!(path = %dir.display(), "removing a cgroup that belongs to no known container");
        }
        self.remove_all(&orphans).await
    }

    async fn prepare_pod(&self, pod: PodContext<'_>, setup: &mut PodSetup) -> Result<()> {
        // What is wrong with it is found out now rather than with the first container.
        self.place(pod).map_err(CgroupError::outward)?;
        if self.driver == CgroupDriver::Cgroupfs {
            return Ok(());
        }
        let parent = pod.config.cgroup_parent.as_deref().filter(|parent| !parent.is_empty()).map(Path::new);
        let (slice, base, pod, shim) = (self.slice(parent), self.base.clone(), pod.id.clone(), setup.shim);
        let mounts: Vec<_> = self.host.trees.iter().map(|tree| tree.mount.clone()).collect();
        blocking(move || mounts.iter().try_for_each(|mount| systemd::adopt(mount, &base, &pod, &slice, shim))).await
    }

    async fn cleanup_pod(&self, pod: &PodId) -> Result<()> {
        if self.driver == CgroupDriver::Cgroupfs {
            return Ok(());
        }
        let (base, pod) = (self.base.clone(), pod.clone());
        blocking(move || systemd::release(&base, &pod)).await
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let mut resources = container.config.resources.clone();
        // Devices come from the isolator of that name; the rest from the request.
        resources.devices = std::mem::take(&mut plan.resources.devices);
        // Kubernetes' containers do not swap unless they are told to.
        if resources.memory_limit.is_some_and(|limit| limit > 0) && resources.memory_swap.is_none() {
            resources.memory_swap = resources.memory_limit;
        }
        // CRI has no field for it, but who runs on v2 can write the file.
        if resources.pids_limit.is_none() && !resources.unified.contains_key(settings::PIDS) {
            let limit = *self.pids.of(&container.pod.config.runtime_handler);
            resources.pids_limit = limit.and_then(|limit| limit.try_into().ok());
        }
        check::check(&self.host, &resources).map_err(CgroupError::outward)?;
        let place = self.place(container.pod).map_err(CgroupError::outward)?;
        plan.cgroups = self.plan(&place, container.id, &resources);
        plan.resources = resources;
        Ok(())
    }

    async fn spec(&self, _config: &ContainerConfig, plan: &LaunchPlan, spec: &mut serde_json::Value) -> Result<()> {
        // Runtimes put it below the mount of each tree, so what is below it must be the same in all: it is.
        let place = plan.cgroups.dirs.iter().find_map(|dir| {
            let below = dir.strip_prefix(&self.host.tree_of(dir)?.mount).ok()?;
            Some(Path::new("/").join(below))
        });
        if let Some(place) = place {
            spec["linux"]["cgroupsPath"] = serde_json::json!(place);
        }
        Ok(())
    }

    async fn update(&self, plan: &LaunchPlan, new: &Resources, running: bool) -> Result<()> {
        let merged = merge_limits(&plan.resources, new);
        let result = check::check(&self.host, &merged).and_then(|()| match running {
            true => update::update(&self.host, &plan.cgroups, &plan.resources, new),
            false => Ok(()),
        });
        result.map_err(CgroupError::outward)
    }

    async fn limitation(&self, plan: &LaunchPlan) -> Option<Limitation> {
        if self.oom_kills(&plan.cgroups).unwrap_or(0) == 0 {
            return self.failed_forks(plan);
        }
        let message = match plan.resources.memory_limit {
            Some(limit) if limit > 0 => format!("a process was killed for lack of memory; the limit is {limit} bytes"),
            _ => "a process was killed because the pod or the host ran out of memory".to_owned(),
        };
        Some(Limitation { reason: Some("OOMKilled".to_owned()), message })
    }

    async fn kill_rest(&self, plan: &LaunchPlan) -> Result<()> {
        self.kill(&plan.cgroups).await
    }

    fn usage(&self, plan: &LaunchPlan, usage: &mut Usage) {
        usage::read(&self.host, &plan.cgroups.dirs, usage);
    }

    async fn cleanup(&self, _container: &ContainerId, plan: Option<&LaunchPlan>) -> Result<()> {
        match plan {
            Some(plan) => self.remove(&plan.cgroups).await,
            None => Ok(()),
        }
    }

    async fn status(&self) -> IsolatorStatus {
        let tree = |tree: &host::Tree| {
            let version = match tree.version {
                Version::V1 => "v1",
                Version::V2 => "v2",
            };
            let controllers: Vec<_> = tree.controllers.iter().map(ToString::to_string).collect();
            format!("{} ({version}: {})", tree.mount.display(), controllers.join(" "))
        };
        let trees: Vec<_> = self.host.trees.iter().map(tree).collect();
        let driver = match self.driver {
            CgroupDriver::Cgroupfs => "cgroupfs",
            CgroupDriver::Systemd => "systemd",
        };
        let details = vec![("cgroups".to_owned(), trees.join(", ")), ("cgroup driver".to_owned(), driver.to_owned())];
        IsolatorStatus { not_ready: None, details }
    }
}

/// Does what may block for a while on a thread that may.
async fn blocking(work: impl FnOnce() -> Result<(), CgroupError> + Send + 'static) -> Result<()> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::with(Kind::Internal, "cgroups", error))?.map_err(CgroupError::outward)
}

#[cfg(test)]
mod tests;

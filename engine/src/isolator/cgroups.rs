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
mod settings;
mod update;
mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use tripod_shim_protocol::{CgroupPlan, LaunchPlan, Resources};

use crate::{
    ContainerConfig, ContainerId, PodConfig, Result,
    plugin::{ContainerContext, Isolator, IsolatorStatus, Known, Limitation, PodContext, PodSetup},
    usage::Usage,
};

use error::CgroupError;
pub use update::merge as merge_limits;

use host::{Controller, Host, Version};

/// How long the end of processes is waited for that are in the way.
const LEFTOVERS: Duration = Duration::from_secs(10);

/// The cgroups of this host, and tripod's own place in them.
#[derive(Debug)]
pub struct Cgroups {
    host: Host,
    base: String,
}

impl Cgroups {
    /// Finds out what the host has. `base` is the name of tripod's own cgroup.
    pub fn discover(base: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if base.is_empty() || base.len() > 200 || !base.bytes().all(plain) {
            return Err(CgroupError::Base(base.to_owned()).outward());
        }
        Ok(Self { host: Host::discover().map_err(CgroupError::outward)?, base: base.to_owned() })
    }

    /// Everything is in the unified (v2) tree.
    pub fn unified(&self) -> bool {
        self.host.unified()
    }

    /// Makes a container's cgroups with all limits set. When it fails nothing of them is left. Takes a few dozen
    /// system calls and never blocks.
    pub fn create(&self, plan: &CgroupPlan, resources: &Resources) -> Result<()> {
        create::create(&self.host, plan, resources).map_err(CgroupError::outward)
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
    fn plan(&self, parent: Option<&Path>, container: &ContainerId, resources: &Resources) -> CgroupPlan {
        let own = Path::new(&self.base);
        let unified = self.host.unified();
        let dir = |tree: &host::Tree| match tree.version {
            // Beside v1 hierarchies kubelet does not use the unified tree, so it would leave a parent there for ever.
            // One more tree to join takes time, so only those do who have huge pages.
            Version::V2 if !unified => {
                let some = resources.hugepages.values().any(|limit| *limit > 0);
                some.then(|| tree.mount.join(own).join(container))
            }
            _ => Some(tree.mount.join(parent.unwrap_or(own)).join(container)),
        };
        CgroupPlan { dirs: self.host.trees.iter().filter_map(dir).collect(), unified }
    }

    /// Tripod's own cgroup in every tree.
    fn bases(&self) -> impl Iterator<Item = PathBuf> {
        self.host.trees.iter().map(|tree| tree.mount.join(&self.base))
    }

    /// The containers' cgroups below it.
    fn own(&self) -> Vec<PathBuf> {
        self.bases().flat_map(|base| file::children(&base).unwrap_or_default()).collect()
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

    async fn prepare_pod(&self, pod: PodContext<'_>, _setup: &mut PodSetup) -> Result<()> {
        // Found out now rather than with the first container.
        parent(pod.config).map(drop).map_err(CgroupError::outward)
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let mut resources = container.config.resources.clone();
        // Devices come from the isolator of that name; the rest from the request.
        resources.devices = std::mem::take(&mut plan.resources.devices);
        // Kubernetes' containers do not swap unless they are told to.
        if resources.memory_limit.is_some_and(|limit| limit > 0) && resources.memory_swap.is_none() {
            resources.memory_swap = resources.memory_limit;
        }
        check::check(&self.host, &resources).map_err(CgroupError::outward)?;
        let parent = parent(container.pod.config).map_err(CgroupError::outward)?;
        plan.cgroups = self.plan(parent.as_deref(), container.id, &resources);
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
        self.oom_kills(&plan.cgroups).filter(|kills| *kills > 0)?;
        let message = match plan.resources.memory_limit {
            Some(limit) if limit > 0 => format!("a process was killed for lack of memory; the limit is {limit} bytes"),
            _ => "a process was killed because the pod or the host ran out of memory".to_owned(),
        };
        Some(Limitation { reason: "OOMKilled".to_owned(), message })
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
        IsolatorStatus { not_ready: None, details: vec![("cgroups".to_owned(), trees.join(", "))] }
    }
}

/// The parent that kubelet names, as a path below the roots of the trees.
fn parent(config: &PodConfig) -> Result<Option<PathBuf>, CgroupError> {
    let Some(parent) = config.cgroup_parent.as_deref().filter(|parent| !parent.is_empty()) else { return Ok(None) };
    if parent.ends_with(".slice") {
        return Err(CgroupError::Unimplemented(
            "the cgroup parent is a systemd slice, and only the cgroupfs driver is built; set kubelet's cgroupDriver \
             to cgroupfs",
        ));
    }
    let invalid =
        || CgroupError::Invalid(format!("the cgroup parent {parent:?} is not an absolute path without `.` and `..`"));
    let below = parent.strip_prefix('/').ok_or_else(invalid)?.trim_end_matches('/');
    let good = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '\n']);
    if below.is_empty() || !below.split('/').all(good) {
        return Err(invalid());
    }
    Ok(Some(below.into()))
}

#[cfg(test)]
mod tests;

//! The engine: pods and containers, and every operation on them.
//!
//! Reads are answered from snapshots and never wait. Changes are operations: they run to their end whoever asked, one at
//! a time for each container and pod, and what they made is undone when they fail.

mod command;
mod containers;
mod exec;
mod index;
mod leftovers;
mod lifecycle;
mod pods;
mod recover;
mod session;
mod spec;
mod stop;
mod usage;
mod watch;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use index::{Container, Index, Pod};
use leftovers::Leftovers;

pub use exec::ExecOutput;
pub use session::{Session, SessionEnd, SessionStreams};
pub use usage::ContainerUsage;

use crate::{
    ContainerId, ContainerRecord, Error, EventKind, EventStream, Kind, OperationStatus, PodId, PodRecord, Result,
    events::{EngineEvent, EventBus},
    operation::Operations,
    plugin::{Isolator, IsolatorStatus, Launcher, Provisioner},
    records::Records,
    shim::ShimProgram,
};

/// Longest time that an isolator may take over one pod or container. CNI plugins have their own, shorter limit.
const ISOLATOR_LIMIT: Duration = Duration::from_secs(240);

/// Longest time for a root filesystem to be made from layers that are there.
const PROVISION_LIMIT: Duration = Duration::from_secs(60);

/// Where the engine keeps things, and what it starts.
#[derive(Debug)]
pub struct EngineOptions {
    /// Folder of what survives a reboot.
    pub root: PathBuf,
    /// Folder of what does not.
    pub state: PathBuf,
    /// The program of the shims.
    pub shim: ShimProgram,
}

/// All plugins of a daemon.
#[derive(Debug)]
pub struct Plugins {
    /// In the order in which they prepare.
    pub isolators: Vec<Arc<dyn Isolator>>,
    /// Makes root filesystems.
    pub provisioner: Arc<dyn Provisioner>,
    /// By RuntimeClass handler; the default one is the empty name.
    pub launchers: BTreeMap<String, Arc<dyn Launcher>>,
}

/// What the engine says of itself.
#[derive(Debug, Clone, Default)]
pub struct EngineStatus {
    /// Isolators that keep pods from running, and why.
    pub not_ready: Vec<(&'static str, String)>,
    /// Details for the verbose status.
    pub details: Vec<(String, String)>,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    state: PathBuf,
    shim: ShimProgram,
    /// The mount namespace, empty but for a root, from which every container starts; shared by all shims.
    empty_namespace: OwnedFd,
    plugins: Plugins,
    records: Records,
    index: Index,
    runs: Operations<PodId>,
    creates: Operations<ContainerId>,
    changes: Operations<()>,
    events: EventBus,
    leftovers: Leftovers,
    /// Held for the life of the daemon: its folders are its own.
    _locks: [std::fs::File; 2],
}

impl Engine {
    /// Opens what an earlier daemon left, takes up what still runs, and removes what belongs to nobody.
    pub async fn open(options: EngineOptions, plugins: Plugins) -> Result<Arc<Self>> {
        check_names(&plugins)?;
        for dir in [&options.root, &options.state, &options.state.join("pods")] {
            make_dir(dir)?;
        }
        let locks = [lock(&options.root)?, lock(&options.state)?];
        let (records, loaded) = Records::open(&options.root)?;
        let (leftovers, retries) = Leftovers::new();
        let empty_namespace = tripod_sys::root::empty_namespace()
            .map_err(|error| Error::io("make the mount namespace from which containers start", error))?;
        let engine = Arc::new(Self {
            state: options.state,
            shim: options.shim,
            empty_namespace,
            plugins,
            records,
            index: Index::default(),
            runs: Operations::default(),
            creates: Operations::default(),
            changes: Operations::default(),
            events: EventBus::default(),
            leftovers,
            _locks: locks,
        });
        engine.recover(loaded).await?;
        leftovers::retry_in_background(&engine, retries);
        watch::watch_in_background(&engine);
        Ok(engine)
    }

    /// All pods, oldest first.
    pub fn pods(&self) -> Vec<Arc<PodRecord>> {
        self.index.pods()
    }

    /// A pod by its ID or an unambiguous beginning of it.
    pub fn pod(&self, id: &str) -> Result<Arc<PodRecord>> {
        Ok(self.index.pod(id)?.record())
    }

    /// All containers, oldest first.
    pub fn containers(&self) -> Vec<Arc<ContainerRecord>> {
        self.index.containers()
    }

    /// A container by its ID or an unambiguous beginning of it.
    pub fn container(&self, id: &str) -> Result<Arc<ContainerRecord>> {
        Ok(self.index.container(id)?.record())
    }

    /// The plan by which a container was, or will be, launched.
    pub fn plan(&self, id: &str) -> Result<Arc<tripod_shim_protocol::LaunchPlan>> {
        Ok(self.index.container(id)?.plan())
    }

    /// Everything that happens from now on.
    pub fn subscribe(&self) -> EventStream {
        self.events.subscribe()
    }

    /// What is under way.
    pub fn operations(&self) -> Vec<OperationStatus> {
        let mut all = self.runs.list();
        all.extend(self.creates.list());
        all.extend(self.changes.list());
        all.sort_by_key(|status| std::cmp::Reverse(status.running_for));
        all
    }

    /// State of the isolators; each answers at once from what it knows.
    pub async fn status(&self) -> EngineStatus {
        let mut status = EngineStatus::default();
        for isolator in &self.plugins.isolators {
            let IsolatorStatus { not_ready, details } = isolator.status().await;
            status.not_ready.extend(not_ready.map(|why| (isolator.name(), why)));
            status
                .details
                .extend(details.into_iter().map(|(key, value)| (format!("{}.{key}", isolator.name()), value)));
        }
        status
    }

    /// Hands the address range that kubelet was given to the isolators.
    pub async fn set_pod_cidr(&self, cidr: &str) -> Result<()> {
        for isolator in &self.plugins.isolators {
            isolator.set_pod_cidr(cidr).await?;
        }
        Ok(())
    }

    fn pod_dir(&self, pod: &PodId) -> PathBuf {
        self.state.join("pods").join(pod)
    }

    fn launcher(&self, handler: &str) -> Result<&Arc<dyn Launcher>> {
        self.plugins.launchers.get(handler).ok_or_else(|| {
            let known: Vec<&str> = self.plugins.launchers.keys().map(String::as_str).collect();
            let message = format!("no runtime handler {handler:?}; the configuration has {known:?}");
            Error::new(Kind::InvalidArgument, message)
        })
    }

    /// Publishes what happened to a pod, or to one of its containers.
    fn publish(&self, kind: EventKind, id: &str, pod: &Arc<Pod>) {
        if self.events.is_heard() {
            let (pod, containers) = (pod.record(), self.index.containers_of(&pod.id));
            self.events.publish(EngineEvent { kind, id: id.to_owned(), pod, containers, at: now() });
        }
    }
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Tells requests for the same object apart.
fn fingerprint(config: &impl serde::Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(config).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// Names of plugins are how people refer to them; two of one name would hide each other.
fn check_names(plugins: &Plugins) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    match plugins.isolators.iter().find(|isolator| !seen.insert(isolator.name())) {
        Some(isolator) => {
            let message = format!("two isolators are called {:?}: remove one of them", isolator.name());
            Err(Error::new(Kind::FailedPrecondition, message))
        }
        None => Ok(()),
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
        .map_err(|error| Error::io(format!("make the folder {}", dir.display()), error))
}

fn lock(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join("lock");
    let file = std::fs::File::create(&path).map_err(|error| Error::io(format!("make {}", path.display()), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::new(
            Kind::FailedPrecondition,
            format!("another tripod uses {}: stop it, or give this one its own --root and --state", dir.display()),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io(format!("lock {}", path.display()), error)),
    }
}

/// Gives a step of a plugin its limit.
async fn limited<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            let message = format!("{what} did not end within {} s", limit.as_secs());
            Err(Error::new(Kind::DeadlineExceeded, message))
        }
    }
}

#[cfg(test)]
mod tests;

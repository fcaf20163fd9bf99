//! All pods and containers in memory: the snapshots for reads, and what operations hold beside them.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, time::Instant};
use tripod_shim_protocol::LaunchPlan;

use crate::{
    ContainerId, ContainerRecord, ContainerState, Error, Kind, PodConfig, PodId, PodRecord, Result, plugin::RootFs,
    shim::Shim,
};

/// A pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub id: PodId,
    record: ArcSwap<PodRecord>,
    shim: Mutex<Option<Arc<Shim>>>,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub id: ContainerId,
    record: ArcSwap<ContainerRecord>,
    plan: ArcSwap<LaunchPlan>,
    /// One operation at a time: start, update, remove.
    pub busy: tokio::sync::Mutex<()>,
    /// Held while its state goes from one to the next, so that an end is never recorded before the start.
    pub transition: tokio::sync::Mutex<()>,
    /// The root filesystem and volumes between creation and start.
    mounts: Mutex<Option<Mounts>>,
    /// True once it has ended.
    pub exited: watch::Sender<bool>,
    /// When it will be killed, while it is being stopped.
    pub deadline: watch::Sender<Option<Instant>>,
}

/// What a container is launched with.
#[derive(Debug)]
pub(super) struct Mounts {
    pub rootfs: RootFs,
    pub volumes: Vec<OwnedFd>,
}

impl Pod {
    pub fn new(record: PodRecord, shim: Option<Arc<Shim>>) -> Self {
        Self { id: record.id.clone(), record: ArcSwap::from_pointee(record), shim: Mutex::new(shim) }
    }

    pub fn record(&self) -> Arc<PodRecord> {
        self.record.load_full()
    }

    pub fn set_record(&self, record: PodRecord) {
        self.record.store(Arc::new(record));
    }

    /// The shim that holds it, or a clear error.
    pub fn shim(&self) -> Result<Arc<Shim>> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(|| {
            Error::new(
                Kind::FailedPrecondition,
                format!("pod {} is not ready: it was stopped or its shim is gone", self.id),
            )
        })
    }

    pub fn take_shim(&self) -> Option<Arc<Shim>> {
        self.shim.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Container {
    pub fn new(record: ContainerRecord, plan: LaunchPlan, mounts: Option<Mounts>) -> Self {
        let exited = matches!(record.state, ContainerState::Exited(_));
        Self {
            id: record.id.clone(),
            record: ArcSwap::from_pointee(record),
            plan: ArcSwap::from_pointee(plan),
            busy: tokio::sync::Mutex::default(),
            transition: tokio::sync::Mutex::default(),
            mounts: Mutex::new(mounts),
            exited: watch::Sender::new(exited),
            deadline: watch::Sender::new(None),
        }
    }

    pub fn record(&self) -> Arc<ContainerRecord> {
        self.record.load_full()
    }

    pub fn set_record(&self, record: ContainerRecord) {
        self.record.store(Arc::new(record));
    }

    pub fn plan(&self) -> Arc<LaunchPlan> {
        self.plan.load_full()
    }

    pub fn set_plan(&self, plan: LaunchPlan) {
        self.plan.store(Arc::new(plan));
    }

    pub fn take_mounts(&self) -> Option<Mounts> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until it has ended.
    pub async fn wait_exited(&self) {
        // The sender lives in this container.
        let _ = self.exited.subscribe().wait_for(|exited| *exited).await;
    }
}

/// Everything by ID and by name.
#[derive(Debug, Default)]
pub(super) struct Index {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    pods: BTreeMap<PodId, Arc<Pod>>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
    pod_names: BTreeMap<String, PodId>,
    container_names: BTreeMap<String, ContainerId>,
}

impl Index {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pods(&self) -> Vec<Arc<PodRecord>> {
        let mut pods: Vec<_> = self.read().pods.values().map(|pod| pod.record()).collect();
        pods.sort_by_key(|pod| pod.created_at);
        pods
    }

    pub fn containers(&self) -> Vec<Arc<ContainerRecord>> {
        let mut containers: Vec<_> = self.read().containers.values().map(|container| container.record()).collect();
        containers.sort_by_key(|container| container.created_at);
        containers
    }

    pub fn containers_of(&self, pod: &PodId) -> Vec<Arc<ContainerRecord>> {
        let mut containers: Vec<_> = self.entries_of(pod).iter().map(|container| container.record()).collect();
        containers.sort_by_key(|container| container.created_at);
        containers
    }

    pub fn entries_of(&self, pod: &PodId) -> Vec<Arc<Container>> {
        let tables = self.read();
        tables.containers.values().filter(|container| container.record.load().pod == *pod).cloned().collect()
    }

    pub fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        find(&self.read().pods, id, "pod")
    }

    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        find(&self.read().containers, id, "container")
    }

    /// The pod that kubelet means by this configuration, if there is one.
    pub fn pod_named(&self, config: &PodConfig) -> Option<Arc<Pod>> {
        let tables = self.read();
        tables.pods.get(tables.pod_names.get(&PodRecord::key(config))?).cloned()
    }

    /// The container of this name, if there is one.
    pub fn container_named(&self, key: &str) -> Option<Arc<Container>> {
        let tables = self.read();
        tables.containers.get(tables.container_names.get(key)?).cloned()
    }

    pub fn insert_pod(&self, pod: Arc<Pod>) {
        let mut tables = self.write();
        tables.pod_names.insert(PodRecord::key(&pod.record().config), pod.id.clone());
        tables.pods.insert(pod.id.clone(), pod);
    }

    /// Adds a container, unless its pod was stopped or removed in the meantime.
    pub fn insert_container(&self, container: Arc<Container>, pod: &PodId) -> Result<()> {
        let mut tables = self.write();
        if !tables.pods.get(pod).is_some_and(|pod| pod.record.load().is_ready()) {
            let message = format!("pod {pod} was stopped while container {} was being created", container.id);
            return Err(Error::new(Kind::FailedPrecondition, message));
        }
        let key = ContainerRecord::key(pod, &container.record().config);
        tables.container_names.insert(key, container.id.clone());
        tables.containers.insert(container.id.clone(), container);
        Ok(())
    }

    /// Adds a container whose pod need not be ready (after a restart).
    pub fn restore_container(&self, container: Arc<Container>) {
        let mut tables = self.write();
        let record = container.record();
        tables.container_names.insert(ContainerRecord::key(&record.pod, &record.config), record.id.clone());
        tables.containers.insert(record.id.clone(), container);
    }

    pub fn remove_pod(&self, pod: &PodId) {
        let mut tables = self.write();
        if let Some(pod) = tables.pods.remove(pod) {
            tables.pod_names.remove(&PodRecord::key(&pod.record().config));
        }
    }

    pub fn remove_container(&self, container: &ContainerId) {
        let mut tables = self.write();
        if let Some(container) = tables.containers.remove(container) {
            let record = container.record();
            tables.container_names.remove(&ContainerRecord::key(&record.pod, &record.config));
        }
    }
}

/// Looks an ID up, or the only one that begins like it.
fn find<K: Ord + Borrow<str>, V: Clone>(table: &BTreeMap<K, V>, id: &str, what: &str) -> Result<V> {
    if let Some(found) = table.get(id) {
        return Ok(found.clone());
    }
    if id.is_empty() {
        return Err(Error::new(Kind::InvalidArgument, format!("the {what} ID is empty")));
    }
    let bounds = (std::ops::Bound::Included(id), std::ops::Bound::Unbounded);
    let mut matches = table.range::<str, _>(bounds).take_while(|(key, _)| (*key).borrow().starts_with(id));
    match (matches.next(), matches.next()) {
        (Some((_, found)), None) => Ok(found.clone()),
        (Some(_), Some(_)) => Err(Error::new(
            Kind::InvalidArgument,
            format!("more than one {what} ID begins with {id:?}: give more of it"),
        )),
        _ => Err(Error::new(Kind::NotFound, format!("no {what} {id:?}"))),
    }
}

//! Making, stopping and removing pods.

use std::{os::fd::OwnedFd, slice, sync::Arc};

use tripod_shim_protocol::{PodPlan, Reply, Request, UserPlan};

use super::{Engine, ISOLATOR_LIMIT, Pod, fingerprint, limited, make_dir, now};
use crate::{
    Error, EventKind, Kind, PodConfig, PodId, PodRecord, PodState, Result,
    operation::Operation,
    plugin::{MappedIds, PodContext, PodSetup},
    shim::Shim,
    undo::Undo,
};

impl Engine {
    /// Makes a pod. The same request again joins the first one, or returns its pod.
    pub async fn run_pod(self: &Arc<Self>, config: PodConfig) -> Result<PodId> {
        let (object, request) = (PodRecord::key(&config), fingerprint(&config));
        let engine = Arc::clone(self);
        let work = |operation: Arc<Operation>| async move { engine.do_run_pod(Arc::new(config), &operation).await };
        self.runs.run("run pod", object, request, work).await
    }

    async fn do_run_pod(self: &Arc<Self>, config: Arc<PodConfig>, operation: &Operation) -> Result<PodId> {
        if let Some(pod) = self.index.pod_named(&config) {
            let record = pod.record();
            if record.is_ready() && record.config == config {
                return Ok(record.id.clone());
            }
            return Err(Error::new(
                Kind::AlreadyExists,
                format!("pod {} has the name {}: remove it first", record.id, PodRecord::key(&config)),
            ));
        }
        self.launcher(&config.runtime_handler)?.ready()?;
        let id = PodId::random();
        let mut undo = Undo::default();
        match self.build_pod(&id, &config, operation, &mut undo).await {
            Ok(pod) => {
                self.publish(EventKind::Created, id.as_str(), &pod);
                self.publish(EventKind::Started, id.as_str(), &pod);
                Ok(id)
            }
            Err(error) => {
                operation.stage("undo");
                self.leftovers.note_pod(&id, &undo.unwind().await);
                Err(error.during(format_args!("run pod {}/{}", config.namespace, config.name)))
            }
        }
    }

    async fn build_pod(
        self: &Arc<Self>,
        id: &PodId,
        config: &Arc<PodConfig>,
        operation: &Operation,
        undo: &mut Undo,
    ) -> Result<Arc<Pod>> {
        operation.stage("shim");
        let dir = self.pod_dir(id);
        undo.push("pod folder", remove_dir(dir.clone()));
        make_dir(&dir)?;
        for part in ["plans", "exits"] {
            make_dir(&dir.join(part))?;
        }
        // The shim begins to run while the isolators prepare what it will enter.
        let (shim, events, shim_pid) = Shim::spawn(&self.shim, id, &dir)?;
        let shim = Arc::new(shim);
        undo.push("shim", end_shim(Arc::clone(&shim)));

        let plan = PodPlan { pod: id.to_string(), dir: dir.clone(), ..PodPlan::default() };
        let mut setup = PodSetup { plan, shim: shim_pid, ..PodSetup::default() };
        if let Some((_, network)) = user_namespace(config, &shim).await? {
            setup.network = network.map(Arc::new);
        }
        for isolator in &self.plugins.isolators {
            operation.stage(isolator.name());
            let context = PodContext { id, config, dir: &dir };
            let (isolator, id) = (Arc::clone(isolator), id.clone());
            let name = isolator.name();
            undo.push(name, {
                let isolator = Arc::clone(&isolator);
                async move { isolator.cleanup_pod(&id).await }
            });
            limited(ISOLATOR_LIMIT, name, isolator.prepare_pod(context, &mut setup)).await?;
        }

        operation.stage("namespaces");
        let (reply, _) =
            shim.request(Request::Setup(Box::new(setup.plan)), slice::from_ref(&self.empty_namespace)).await?;
        let Reply::Ready { pid: shim_pid, .. } = reply else {
            return Err(Error::new(Kind::Internal, format!("the shim answered the set-up of pod {id} with {reply:?}")));
        };

        operation.stage("record");
        let record = PodRecord {
            id: id.clone(),
            config: Arc::clone(config),
            created_at: now(),
            state: PodState::Ready { shim_pid },
            ips: setup.ips,
        };
        self.records.put_pod(&record).await?;
        let pod = Arc::new(Pod::new(record, Some(Arc::clone(&shim))));
        self.index.insert_pod(Arc::clone(&pod));
        self.watch_shim(&pod, &shim, events);
        Ok(pod)
    }

    /// Stops a pod: ends its containers, gives back its addresses and ports. Unknown pods are fine.
    pub async fn stop_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let pod = match self.index.pod(id) {
            Ok(pod) => pod,
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let engine = Arc::clone(self);
        let object = pod.id.to_string();
        let work = |operation: Arc<Operation>| async move { engine.do_stop_pod(&pod, &operation).await };
        self.changes.run("stop pod", object, 0, work).await
    }

    async fn do_stop_pod(self: &Arc<Self>, pod: &Arc<Pod>, operation: &Operation) -> Result<()> {
        let before = pod.record();
        // From here on no container can be added.
        let stopped = PodRecord { state: PodState::NotReady, ..(*before).clone() };
        pod.set_record(stopped.clone());

        operation.stage("containers");
        let containers = self.index.entries_of(&pod.id);
        let ends = containers.iter().map(|container| self.end_container(container));
        for result in futures::future::join_all(ends).await {
            result.map_err(|error| error.during(format_args!("stop pod {}", pod.id)))?;
        }
        operation.stage("shim");
        if let Some(shim) = pod.take_shim() {
            end_shim(shim).await?;
        }
        let mut errors = Vec::new();
        for isolator in self.plugins.isolators.iter().rev() {
            operation.stage(isolator.name());
            let cleanup = limited(ISOLATOR_LIMIT, isolator.name(), isolator.cleanup_pod(&pod.id));
            errors.extend(cleanup.await.err().map(|error| error.during(isolator.name())));
        }
        operation.stage("record");
        self.records.put_pod(&stopped).await?;
        if before.is_ready() {
            self.publish(EventKind::Stopped, pod.id.as_str(), pod);
        }
        all_or_first(errors, format_args!("stop pod {}", pod.id))
    }

    /// Removes a pod with its containers; stops it first. Unknown pods are fine.
    pub async fn remove_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let pod = match self.index.pod(id) {
            Ok(pod) => pod,
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.stop_pod(pod.id.as_str()).await?;
        let engine = Arc::clone(self);
        let object = pod.id.to_string();
        let work = |operation: Arc<Operation>| async move { engine.do_remove_pod(&pod, &operation).await };
        self.changes.run("remove pod", object, 0, work).await
    }

    async fn do_remove_pod(self: &Arc<Self>, pod: &Arc<Pod>, operation: &Operation) -> Result<()> {
        operation.stage("containers");
        for container in self.index.entries_of(&pod.id) {
            self.remove_container(container.id.as_str()).await?;
        }
        operation.stage("files");
        remove_dir(self.pod_dir(&pod.id)).await?;
        operation.stage("record");
        self.records.remove_pod(&pod.id).await?;
        self.index.remove_pod(&pod.id);
        self.publish(EventKind::Deleted, pod.id.as_str(), pod);
        Ok(())
    }

    /// Undoes everything of a pod that could not be made or was found without a record. Idempotent.
    pub(super) async fn sweep_pod(&self, id: &PodId) -> Result<()> {
        let mut errors = Vec::new();
        let dir = self.pod_dir(id);
        if let Ok(Some((shim, _events))) = Shim::find(id, &dir) {
            errors.extend(end_shim(Arc::new(shim)).await.err());
        }
        for isolator in self.plugins.isolators.iter().rev() {
            let cleanup = limited(ISOLATOR_LIMIT, isolator.name(), isolator.cleanup_pod(id));
            errors.extend(cleanup.await.err().map(|error| error.during(isolator.name())));
        }
        errors.extend(remove_dir(dir).await.err());
        all_or_first(errors, format_args!("clean up after pod {id}"))
    }
}

/// The pod's user namespace and the network namespace that it owns, where it has them; made the first time that they are
/// asked for.
pub(super) async fn user_namespace(config: &PodConfig, shim: &Shim) -> Result<Option<(MappedIds, Option<OwnedFd>)>> {
    let namespaces = config.namespaces;
    let Some(mapping) = namespaces.user else { return Ok(None) };
    let plan = UserPlan {
        mapping,
        network: !namespaces.host_network,
        ipc: !namespaces.host_ipc,
        uts: !namespaces.host_network,
    };
    let (reply, fds) = shim.request(Request::UserNamespace(plan), &[]).await?;
    let mut fds = fds.into_iter();
    match (reply, fds.next()) {
        (Reply::UserNamespace, Some(namespace)) => Ok(Some((MappedIds { mapping, namespace }, fds.next()))),
        (reply, _) => {
            Err(Error::new(Kind::Internal, format!("the shim answered the making of a user namespace with {reply:?}")))
        }
    }
}

/// Ends a shim and waits until it is gone.
pub(super) async fn end_shim(shim: Arc<Shim>) -> Result<()> {
    match shim.tell(Request::Shutdown).await {
        Ok(()) => {}
        // It is gone already, or goes now.
        Err(error) if error.kind() == Kind::Unavailable => {}
        Err(error) => return Err(error),
    }
    limited(std::time::Duration::from_secs(10), "the end of the shim", async {
        shim.gone().await;
        Ok(())
    })
    .await
}

/// Removes a folder with all in it; one that is absent is fine.
pub(super) async fn remove_dir(dir: std::path::PathBuf) -> Result<()> {
    match tokio::fs::remove_dir_all(&dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// One error that tells of all.
pub(super) fn all_or_first(errors: Vec<Error>, what: impl std::fmt::Display) -> Result<()> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    let rest: Vec<String> = errors.map(|error| error.to_string()).collect();
    let also = if rest.is_empty() { String::new() } else { format!(" (and: {})", rest.join("; ")) };
    Err(Error::new(first.kind(), format!("{what}: {first}{also}")))
}

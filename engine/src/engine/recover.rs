//! After a restart: what still runs is taken up, what has ended is recorded, what belongs to nobody is removed.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures::future::join_all;
use tripod_shim_protocol::{ContainerReport, LaunchPlan, Reply, Request};

use super::{Container, Engine, Pod, containers::plan_file, now};
use crate::{
    ContainerRecord, ContainerState, Error, Kind, PodId, PodRecord, PodState, Result,
    plugin::Known,
    records::Loaded,
    shim::{Shim, ShimEvents},
};

/// What the status of a container says that was running when the node went down.
const NODE_RESTARTED: &str = "the node was restarted while the container was running";

/// What the status of a container says whose shim was gone when the daemon came back.
const SHIM_LOST: &str = "the shim that held the container was gone when tripod was restarted";

const SIGKILL: i32 = 9;

/// How long a start that was under way when the daemon ended may still take.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A shim that still holds its pod, and what it knows.
struct Found {
    shim: Arc<Shim>,
    events: ShimEvents,
    report: BTreeMap<String, ContainerReport>,
}

impl Engine {
    pub(super) async fn recover(self: &Arc<Self>, mut loaded: Loaded) -> Result<()> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Error::io("read the boot ID of the kernel", error))?;
        let boot_id = boot_id.trim();
        let rebooted = loaded.boot_id.as_deref().is_some_and(|before| before != boot_id);
        self.records.put_boot(boot_id).await?;

        self.drop_orphans(&mut loaded).await?;
        let mut known = Known::default();
        known.pods.extend(loaded.pods.iter().map(|pod| pod.id.clone()));
        known.containers.extend(loaded.containers.iter().map(|container| container.id.clone()));
        let ready: Vec<PodId> = loaded.pods.iter().filter(|pod| pod.is_ready()).map(|pod| pod.id.clone()).collect();
        // All at once: one shim that does not answer must not hold up the daemon for each of its kind.
        let shims = join_all(ready.iter().map(|pod| self.find_shim(pod))).await;
        let mut found: BTreeMap<PodId, Found> =
            ready.into_iter().zip(shims).filter_map(|(pod, shim)| Some((pod, shim?))).collect();
        known.live_pods.extend(found.keys().cloned());
        self.restore(loaded, &mut found, if rebooted { NODE_RESTARTED } else { SHIM_LOST }).await;
        // Shims without a record hold processes that may use what the plugins are about to remove.
        self.sweep_unknown_pods(&known).await?;
        for (handler, launcher) in &self.plugins.launchers {
            launcher
                .recover(&known)
                .await
                .map_err(|error| error.during(format_args!("runtime handler {handler:?}")))?;
        }
        self.plugins.provisioner.recover(&known).await?;
        for isolator in &self.plugins.isolators {
            isolator.recover(&known).await.map_err(|error| error.during(isolator.name()))?;
        }
        Ok(())
    }

    /// Puts the records back into memory, corrected by what the shims say.
    async fn restore(self: &Arc<Self>, loaded: Loaded, found: &mut BTreeMap<PodId, Found>, message: &str) {
        for mut record in loaded.pods {
            let was_ready = record.is_ready();
            let shim = found.get(&record.id).map(|found| Arc::clone(&found.shim));
            if shim.is_none() {
                record.state = PodState::NotReady;
            }
            let pod = Arc::new(Pod::new(record.clone(), shim));
            self.index.insert_pod(Arc::clone(&pod));
            if was_ready && !record.is_ready() {
                self.note_lost(&record).await;
            }
        }
        for record in loaded.containers {
            let Ok(pod) = self.index.pod(record.pod.as_str()) else { continue };
            let report = found.get(&pod.id).and_then(|found| found.report.get(record.id.as_str()));
            self.restore_container(record, &pod, report, message).await;
        }
        for (id, Found { shim, events, .. }) in std::mem::take(found) {
            if let Ok(pod) = self.index.pod(id.as_str()) {
                self.watch_shim(&pod, &shim, events);
            }
        }
    }

    /// Forgets containers whose pod has no record: what belongs to them is unknown from here on, and removed.
    async fn drop_orphans(&self, loaded: &mut Loaded) -> Result<()> {
        let has_pod = |container: &ContainerRecord| loaded.pods.iter().any(|pod| pod.id == container.pod);
        let (kept, orphans): (Vec<_>, Vec<_>) = std::mem::take(&mut loaded.containers).into_iter().partition(has_pod);
        loaded.containers = kept;
        for orphan in orphans {
            tracing::warn!(container = %orphan.id, pod = %orphan.pod, "a container without its pod is removed");
            self.records.remove_container(&orphan.id).await?;
        }
        Ok(())
    }

    async fn note_lost(&self, record: &PodRecord) {
        tracing::info!(pod = %record.id, name = record.config.name, "the pod did not survive; it waits to be removed");
        if let Err(error) = self.records.put_pod(record).await {
            tracing::error!(pod = %record.id, %error, "the state of the pod could not be recorded");
        }
    }

    async fn restore_container(
        self: &Arc<Self>,
        mut record: ContainerRecord,
        pod: &Arc<Pod>,
        report: Option<&ContainerReport>,
        message: &str,
    ) {
        if let (ContainerState::Created, Some(report)) = (&record.state, report) {
            // The daemon ended between the start and its record.
            let (pid, started_at) = match report {
                ContainerReport::Starting { pid } => (*pid, now()),
                ContainerReport::Running { pid, started_at } => (*pid, *started_at),
                ContainerReport::Exited(exit) => (0, exit.started_at),
            };
            record.state = ContainerState::Running { pid, started_at };
            if let Err(error) = self.records.put_container(&record).await {
                tracing::error!(container = %record.id, %error, "the start of a container could not be recorded");
            }
        }
        let plan = read_plan(&self.pod_dir(&pod.id), &record);
        let container = Arc::new(Container::new(record, plan, None));
        self.index.restore_container(Arc::clone(&container));
        match report {
            Some(ContainerReport::Running { .. }) => {}
            // It still hangs after the time that it was given: a mount does not answer.
            Some(ContainerReport::Starting { .. }) => {
                if let Err(error) = self.end_container(&container).await {
                    tracing::error!(container = %container.id, %error, "a start that hangs could not be ended");
                }
            }
            Some(ContainerReport::Exited(exit)) => {
                if let Ok(shim) = pod.shim() {
                    self.container_exited(pod, &shim, container.id.as_str(), exit.clone()).await;
                }
            }
            None => self.end_unseen(&container, pod, message).await,
        }
    }

    /// The shim of a pod, if it answers.
    async fn find_shim(&self, pod: &PodId) -> Option<Found> {
        let (shim, events) = match Shim::find(pod, &self.pod_dir(pod)) {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(%pod, %error, "the shim cannot be reached");
                return None;
            }
        };
        match settled_report(&shim).await {
            Ok(report) => Some(Found { shim: Arc::new(shim), events, report }),
            Err(error) => {
                tracing::warn!(%pod, %error, "the shim does not answer");
                None
            }
        }
    }

    /// Removes what a daemon left that was killed in the midst of making or removing a pod.
    async fn sweep_unknown_pods(&self, known: &Known) -> Result<()> {
        let dir = self.state.join("pods");
        let entries = std::fs::read_dir(&dir).map_err(|error| Error::io(format!("read {}", dir.display()), error))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        for pod in names.filter_map(|name| PodId::parse(&name)).filter(|pod| !known.pods.contains(pod)) {
            if let Err(error) = self.sweep_pod(&pod).await {
                self.leftovers.note_pod(&pod, &[error]);
            }
        }
        Ok(())
    }
}

/// What the shim knows, once the starts that were under way are through. Those that have had their time (a hook takes
/// long) are ended: such a container has not been started.
async fn settled_report(shim: &Shim) -> Result<BTreeMap<String, ContainerReport>> {
    let mut until = tokio::time::Instant::now() + START_LIMIT;
    let mut ended = false;
    loop {
        let (reply, _) = shim.request(Request::List, &[]).await?;
        let Reply::Report { containers, .. } = reply else {
            return Err(Error::new(Kind::Internal, format!("the shim answered a list with {reply:?}")));
        };
        let starting = |(_, report): &(&String, &ContainerReport)| matches!(report, ContainerReport::Starting { .. });
        let late = tokio::time::Instant::now() > until;
        if (late && ended) || !containers.iter().any(|entry| starting(&entry)) {
            return Ok(containers);
        }
        if late {
            for (container, _) in containers.iter().filter(starting) {
                tracing::warn!(container, "a start that was under way takes too long and is ended");
                let kill = Request::Signal { container: container.clone(), signal: SIGKILL };
                if let Err(error) = shim.tell(kill).await {
                    tracing::warn!(container, %error, "it could not be ended");
                }
            }
            (until, ended) = (tokio::time::Instant::now() + START_LIMIT, true);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The plan of a container; after a reboot there is none, and what can be known of it is enough to clean up.
fn read_plan(dir: &Path, record: &ContainerRecord) -> LaunchPlan {
    let read = || {
        let bytes = std::fs::read(plan_file(dir, &record.id)).ok()?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::with(Kind::Internal, "decode a plan", error))
            .inspect_err(|error| tracing::error!(container = %record.id, %error, "the plan is unreadable"))
            .ok()
    };
    read().unwrap_or_else(|| LaunchPlan {
        container: record.id.to_string(),
        resources: record.resources.clone(),
        ..LaunchPlan::default()
    })
}

//! What happens by itself: ends of containers, ends of shims.

use std::sync::Arc;

use tripod_shim_protocol::{Event, ExitRecord, Request};

use super::{Container, Engine, Pod, now};
use crate::{
    ContainerRecord, ContainerState, EventKind, Exit, PodRecord, PodState, Result,
    plugin::Limitation,
    shim::{Shim, ShimEvents},
};

/// What the status of a container says whose shim was killed.
const SHIM_GONE: &str = "the shim that held the container is gone; its processes were killed";

impl Engine {
    /// Follows a shim until it is gone.
    pub(super) fn watch_shim(self: &Arc<Self>, pod: &Arc<Pod>, shim: &Arc<Shim>, mut events: ShimEvents) {
        let (engine, pod, shim) = (Arc::clone(self), Arc::clone(pod), Arc::clone(shim));
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Exited { container, record } = event {
                    // One container's clean-up must not delay the news of another.
                    let (engine, pod, shim) = (Arc::clone(&engine), Arc::clone(&pod), Arc::clone(&shim));
                    tokio::spawn(async move { engine.container_exited(&pod, &shim, &container, record).await });
                }
            }
            engine.shim_gone(&pod).await;
        });
    }

    /// The shim has seen a container end.
    pub(super) async fn container_exited(&self, pod: &Arc<Pod>, shim: &Shim, container: &str, record: ExitRecord) {
        if let Ok(container) = self.index.container(container) {
            // A start that is under way records the beginning first.
            let _transition = container.transition.lock().await;
            let limitation = self.limitation(&container).await;
            if let Err(error) = self.record_exit(&container, pod, Exit::seen(&record, limitation)).await {
                // The shim keeps its record, and the next daemon will find it.
                tracing::error!(container = %container.id, %error, "the end of a container could not be recorded");
                return;
            }
        }
        if let Err(error) = shim.tell(Request::Forget { container: container.to_owned() }).await {
            tracing::debug!(container, %error, "the shim could not be told to forget a container");
        }
    }

    async fn limitation(&self, container: &Container) -> Option<Limitation> {
        if let Some(limitation) = &container.record().limitation {
            return Some(limitation.clone());
        }
        let plan = container.plan();
        for isolator in &self.plugins.isolators {
            if let Some(limitation) = isolator.limitation(&plan).await {
                return Some(limitation);
            }
        }
        None
    }

    /// Kills all that runs in a container.
    pub(super) async fn kill_rest(&self, container: &Container) {
        let plan = container.plan();
        for isolator in &self.plugins.isolators {
            if let Err(error) = isolator.kill_rest(&plan).await {
                tracing::error!(container = %container.id, isolator = isolator.name(), %error, "processes are left");
            }
        }
    }

    /// Ends what is left of a container and records its end; the caller holds its transition. Once only.
    pub(super) async fn record_exit(&self, container: &Arc<Container>, pod: &Arc<Pod>, exit: Exit) -> Result<()> {
        let record = container.record();
        let state = ContainerState::Exited(exit);
        if !state.may_follow(&record.state) {
            return Ok(());
        }
        let ran = matches!(record.state, ContainerState::Running { .. });
        self.kill_rest(container).await;
        let plan = container.plan();
        if let Ok(launcher) = self.launcher(&pod.record().config.runtime_handler)
            && let Err(error) = launcher.destroy(&plan).await
        {
            // Removing the container tries again.
            tracing::warn!(container = %container.id, %error, "what the launcher made could not be removed yet");
        }
        drop(container.take_mounts());
        let exited = ContainerRecord { state, ..(*record).clone() };
        // It has ended, whether or not the disk takes that down: who waits for it waits for no disk.
        let recorded = self.records.put_container(&exited).await;
        container.set_record(exited);
        container.exited.send_replace(true);
        if ran {
            self.publish(EventKind::Stopped, container.id.as_str(), pod);
        }
        recorded
    }

    /// A shim is gone. If nobody stopped the pod, it was killed: its containers are ended, and the pod is not ready.
    async fn shim_gone(&self, pod: &Arc<Pod>) {
        if pod.take_shim().is_none() {
            return;
        }
        let record = pod.record();
        tracing::warn!(pod = %pod.id, name = record.config.name, "the shim is gone: the pod is not ready any more");
        let lost = PodRecord { state: PodState::NotReady, ..(*record).clone() };
        pod.set_record(lost.clone());
        if let Err(error) = self.records.put_pod(&lost).await {
            tracing::error!(pod = %pod.id, %error, "the state of the pod could not be recorded");
        }
        for container in self.index.entries_of(&pod.id) {
            let _transition = container.transition.lock().await;
            self.end_unseen(&container, pod, SHIM_GONE).await;
        }
        self.publish(EventKind::Stopped, pod.id.as_str(), pod);
    }

    /// Records the end of a container that nobody has watched: from the shim's record on disk if it wrote one.
    pub(super) async fn end_unseen(&self, container: &Arc<Container>, pod: &Arc<Pod>, message: &str) {
        let record = container.record();
        let ContainerState::Running { started_at, .. } = record.state else { return };
        let file = self.pod_dir(&pod.id).join("exits").join(&container.id);
        let seen = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<ExitRecord>(&bytes).ok());
        let exit = match seen {
            Some(seen) => Exit::seen(&seen, self.limitation(container).await),
            None => Exit::unseen(started_at, now(), message),
        };
        if let Err(error) = self.record_exit(container, pod, exit).await {
            tracing::error!(container = %container.id, %error, "the end of a container could not be recorded");
        }
    }
}

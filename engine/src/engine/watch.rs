//! Limits that no kernel holds: isolators look at running containers now and then, and one above its limit is ended.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Container, Engine, limited};
use crate::{
    ContainerId, ContainerRecord, ContainerState, Result,
    plugin::{Isolator, Limitation},
};

/// Longest time that one look may take. What it had begun may go on, and is there for the next look.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// Has every isolator look that wants to, for as long as the engine lives.
pub(super) fn watch_in_background(engine: &Arc<Engine>) {
    for isolator in &engine.plugins.isolators {
        let Some(interval) = isolator.watch_interval() else { continue };
        let (engine, isolator) = (Arc::downgrade(engine), Arc::clone(isolator));
        tokio::spawn(async move {
            let mut ending = BTreeSet::new();
            loop {
                tokio::time::sleep(interval).await;
                let Some(engine) = engine.upgrade() else { return };
                engine.look(&*isolator, &mut ending).await;
            }
        });
    }
}

impl Engine {
    /// One after the other, so that the disk has one to count at a time. `ending` are those that are being ended.
    async fn look(self: &Arc<Self>, isolator: &dyn Isolator, ending: &mut BTreeSet<ContainerId>) {
        let mut running = self.index.containers();
        running.retain(|record| matches!(record.state, ContainerState::Running { .. }));
        ending.retain(|id| running.iter().any(|record| record.id == *id));
        running.retain(|record| !ending.contains(&record.id));
        for record in running {
            let Some(limitation) = self.exceeded(isolator, &record).await else { continue };
            let Ok(container) = self.index.container(record.id.as_str()) else { continue };
            ending.insert(record.id.clone());
            let engine = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = engine.end_for(&container, limitation).await {
                    tracing::error!(container = %container.id, %error, "a container above its limit could not be ended");
                }
            });
        }
    }

    async fn exceeded(&self, isolator: &dyn Isolator, record: &ContainerRecord) -> Option<Limitation> {
        // An earlier daemon has found it, and was killed before it had ended the container.
        if record.limitation.is_some() {
            return record.limitation.clone();
        }
        let plan = self.index.container(record.id.as_str()).ok()?.plan();
        let look = limited(LOOK_LIMIT, isolator.name(), isolator.watch(&record.id, &plan)).await;
        look.inspect_err(|error| tracing::debug!(container = %record.id, %error, "a limit could not be looked at"))
            .ok()
            .flatten()
    }

    /// Kills a container for a limit. The reason is recorded first: the end is told with it, by whichever daemon.
    async fn end_for(self: &Arc<Self>, container: &Arc<Container>, limitation: Limitation) -> Result<()> {
        {
            let _transition = container.transition.lock().await;
            let record = container.record();
            if !matches!(record.state, ContainerState::Running { .. }) {
                return Ok(());
            }
            tracing::warn!(container = %container.id, name = record.config.name, "killed: {}", limitation.message);
            let marked = ContainerRecord { limitation: Some(limitation), ..(*record).clone() };
            container.set_record(marked.clone());
            // A disk that is full must not save who filled it.
            if let Err(error) = self.records.put_container(&marked).await {
                tracing::error!(container = %container.id, %error, "the reason of an end could not be recorded");
            }
        }
        self.end_container(container).await
    }
}

//! What containers and pods use.

use std::time::Duration;

use super::{Engine, limited, now};
use crate::{
    Result,
    plugin::PodContext,
    usage::{PodUsage, Usage, WritableLayer},
};

/// Longest time that the measuring of a writable layer may hold up an answer.
const MEASURE_LIMIT: Duration = Duration::from_secs(2);

/// How old a count of a writable layer may be that goes into statistics.
const FRESH: Duration = Duration::from_secs(10);

/// A container's usage at one moment.
#[derive(Debug, Clone, Default)]
pub struct ContainerUsage {
    /// What isolators measured; empty for a container that does not run.
    pub usage: Usage,
    /// Its writable layer.
    pub writable: Option<WritableLayer>,
    /// Nanoseconds since the epoch.
    pub sampled_at: i64,
}

impl Engine {
    /// What a container uses now.
    pub async fn container_usage(&self, id: &str) -> Result<ContainerUsage> {
        let container = self.index.container(id)?;
        let mut usage = Usage::default();
        if container.record().running("measure").is_ok() {
            let plan = container.plan();
            for isolator in &self.plugins.isolators {
                isolator.usage(&plan, &mut usage);
            }
        }
        let measure = self.plugins.provisioner.usage(&container.id, FRESH);
        let writable = limited(MEASURE_LIMIT, "measuring the writable layer", measure)
            .await
            .inspect_err(|error| tracing::debug!(container = %container.id, %error, "no usage of the writable layer"))
            .ok();
        Ok(ContainerUsage { usage, writable, sampled_at: now() })
    }

    /// What a pod uses beyond its containers.
    pub async fn pod_usage(&self, id: &str) -> Result<PodUsage> {
        let pod = self.index.pod(id)?;
        let (record, dir) = (pod.record(), self.pod_dir(&pod.id));
        let context = PodContext { id: &pod.id, config: &record.config, dir: &dir };
        let mut usage = PodUsage::default();
        for isolator in &self.plugins.isolators {
            isolator.pod_usage(context, &mut usage);
        }
        Ok(usage)
    }
}

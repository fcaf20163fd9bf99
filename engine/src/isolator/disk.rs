//! The disk that a container may fill: its writable layer, looked at now and then.
//!
//! With project quotas the kernel holds the limit: who has reached it can write no more, and a failure of it is told with
//! that. Few filesystems have them switched on; without, a container can be above its limit until the next look, and is
//! ended then. Where no limit is set there is no such isolator, and nothing is looked at.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tripod_shim_protocol::LaunchPlan;

use crate::{
    ByHandler, ContainerId, Kind, Limits, Result,
    plugin::{ContainerContext, Isolator, Limitation, Provisioner},
};

/// What the status says of a container that was ended for it. Not `Evicted`: that is kubelet's word for a pod that it
/// has removed from the node, and this container may be started again.
const REASON: &str = "DiskLimitExceeded";

/// With so little left of a limit that the kernel holds, a write may have been refused: bytes, or a quarter of the limit.
/// XFS asks for up to so much at once.
const LITTLE: u64 = 4 << 20;

/// Looks at writable layers.
#[derive(Debug)]
pub struct Disk {
    provisioner: Arc<dyn Provisioner>,
    limits: ByHandler<Option<u64>>,
    interval: Duration,
}

impl Disk {
    /// `None` where nobody has a limit. A layer is looked at once in each `interval`.
    pub fn new(provisioner: Arc<dyn Provisioner>, limits: &ByHandler<Limits>, interval: Duration) -> Option<Self> {
        let limits = limits.map(|limits| limits.disk_bytes);
        let limited = limits.iter().any(Option::is_some);
        limited.then_some(Self { provisioner, limits, interval })
    }
}

#[async_trait]
impl Isolator for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        plan.resources.disk_limit = *self.limits.of(&container.pod.config.runtime_handler);
        Ok(())
    }

    fn watch_interval(&self) -> Option<Duration> {
        Some(self.interval)
    }

    async fn watch(&self, container: &ContainerId, plan: &LaunchPlan) -> Result<Option<Limitation>> {
        let Some(limit) = plan.resources.disk_limit else { return Ok(None) };
        // A count of the statistics will do if it is about as old as the last look would be on average.
        let used = match self.provisioner.usage(container, self.interval / 2).await {
            Ok(usage) => usage.bytes,
            // Who makes it too deep to be counted does not get away with it.
            Err(error) if error.kind() == Kind::ResourceExhausted => {
                let message = format!("{error}; the limit is {limit} bytes (limits.disk_bytes)");
                return Ok(Some(Limitation { reason: Some(REASON.to_owned()), message }));
            }
            Err(error) => return Err(error),
        };
        let exceeded = || Limitation {
            reason: Some(REASON.to_owned()),
            message: format!(
                "its writable layer takes {used} bytes of the disk; the limit is {limit} (limits.disk_bytes)"
            ),
        };
        Ok((used > limit).then(exceeded))
    }

    async fn limitation(&self, plan: &LaunchPlan) -> Option<Limitation> {
        let limit = plan.resources.disk_limit?;
        let left = self.provisioner.left(&ContainerId::parse(&plan.container)?).await?;
        let message =
            format!("its writable layer had {left} bytes left to write; the limit is {limit} (limits.disk_bytes)");
        (left < LITTLE.min(limit / 4)).then_some(Limitation { reason: None, message })
    }
}

#[cfg(test)]
mod tests;

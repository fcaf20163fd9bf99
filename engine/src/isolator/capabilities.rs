//! Capability sets of a container: the field's default set, what the request adds and drops, never more than the
//! daemon holds itself.

use std::sync::Once;

use async_trait::async_trait;
use tripod_shim_protocol::{Capabilities as Sets, Capability, LaunchPlan};
use tripod_sys::caps;

use super::capability;
use crate::{
    ByHandler, Limits, Result, Security,
    plugin::{ContainerContext, Isolator, IsolatorStatus},
};

/// What an ordinary container holds; every runtime of today has these fourteen: CHOWN, DAC_OVERRIDE, FOWNER, FSETID,
/// KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const DEFAULT: [Capability; 14] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// The capabilities that this process can give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held(u64);

impl Held {
    /// Asks the kernel. A child gets at most what is both permitted and in the bounding set.
    pub fn read() -> Self {
        let permitted = caps::get().map_or(0, |sets| sets.permitted);
        Self(permitted & caps::bounding())
    }

    /// Whether a capability is among them.
    pub fn has(self, capability: Capability) -> bool {
        capability < 64 && self.0 >> capability & 1 == 1
    }
}

/// Writes capability sets.
#[derive(Debug)]
pub struct Capabilities {
    held: Held,
    /// The sets that requests add to and drop from.
    defaults: ByHandler<u64>,
    warned: Once,
}

impl Capabilities {
    /// Looks at what the daemon holds. The operator's sets take the place of the field's.
    pub fn new(limits: &ByHandler<Limits>) -> Self {
        let defaults = limits.map(|limits| bits(limits.capabilities.as_deref().unwrap_or(&DEFAULT)));
        Self { held: Held::read(), defaults, warned: Once::new() }
    }

    /// Those of `wanted` that can be given.
    fn clamp(&self, wanted: u64) -> Vec<Capability> {
        let missing = list(wanted & !self.held.0);
        if !missing.is_empty() {
            self.warned.call_once(|| {
                let missing: Vec<_> = missing.into_iter().map(capability::name).collect();
                tracing::warn!(?missing, "tripod does not hold all capabilities and cannot give these to containers");
            });
        }
        list(wanted & self.held.0)
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::new(&ByHandler::default())
    }
}

#[async_trait]
impl Isolator for Capabilities {
    fn name(&self) -> &'static str {
        "capabilities"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let security = &container.config.security;
        let wanted = wanted(security, *self.defaults.of(&container.pod.config.runtime_handler));
        let ambient = self.clamp(bits(&security.ambient_capabilities) & wanted);
        let all = self.clamp(wanted);
        // For a user other than root the kernel empties permitted and effective at execve, but for the ambient ones.
        // They are given all the same, as other runtimes do: reaching the program (a folder closed to the user, say)
        // happens before. Inheritable is what ambient needs and no more (CVE-2022-24769).
        plan.process.capabilities = Sets {
            bounding: all.clone(),
            permitted: all.clone(),
            effective: all,
            inheritable: ambient.clone(),
            ambient,
        };
        Ok(())
    }

    async fn status(&self) -> IsolatorStatus {
        let missing: Vec<_> = list(wanted_by_privileged() & !self.held.0).into_iter().map(capability::name).collect();
        let details = if missing.is_empty() {
            Vec::new()
        } else {
            vec![("capabilities".to_owned(), format!("not held and not given: {}", missing.join(" ")))]
        };
        IsolatorStatus { not_ready: None, details }
    }
}

/// The request as a mask. `drop` wins over `add`, single names over `ALL`.
fn wanted(security: &Security, default: u64) -> u64 {
    if security.privileged {
        return wanted_by_privileged();
    }
    let base = match (security.add_all_capabilities, security.drop_all_capabilities) {
        (_, true) => 0,
        (true, false) => wanted_by_privileged(),
        (false, false) => default,
    };
    let added = bits(&security.add_capabilities) | bits(&security.ambient_capabilities);
    (base | added) & !bits(&security.drop_capabilities)
}

/// All that this kernel knows: the bounding set of the first process of the host ends there.
fn wanted_by_privileged() -> u64 {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    let last = last.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(40).min(62);
    (1 << (last + 1)) - 1
}

fn bits(capabilities: &[Capability]) -> u64 {
    capabilities.iter().filter(|capability| **capability < 64).fold(0, |bits, capability| bits | 1 << capability)
}

fn list(bits: u64) -> Vec<Capability> {
    (0..64).filter(|number| bits >> number & 1 == 1).collect()
}

#[cfg(test)]
mod tests;

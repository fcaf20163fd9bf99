//! Which pods and containers a list is about.

use std::collections::HashMap;

use tripod_cri_api::v1::{
    ContainerFilter, ContainerState as WireState, ContainerStatsFilter, PodSandboxFilter, PodSandboxState,
    PodSandboxStatsFilter,
};
use tripod_engine::{ContainerRecord, ContainerState, Map, PodRecord};

/// Whether a pod is meant. An empty ID and an empty selector mean all; an ID may be the beginning of one.
pub(super) fn pod(filter: Option<&PodSandboxFilter>, pod: &PodRecord) -> bool {
    let Some(filter) = filter else { return true };
    let state =
        filter.state.is_none_or(|state| (state.state == PodSandboxState::SandboxReady as i32) == pod.is_ready());
    state && pod.id.as_str().starts_with(&filter.id) && selects(&filter.label_selector, &pod.config.labels)
}

/// Whether a pod's figures are meant.
pub(super) fn pod_stats(filter: Option<&PodSandboxStatsFilter>, pod: &PodRecord) -> bool {
    let Some(filter) = filter else { return true };
    pod.id.as_str().starts_with(&filter.id) && selects(&filter.label_selector, &pod.config.labels)
}

/// Whether a container is meant.
pub(super) fn container(filter: Option<&ContainerFilter>, container: &ContainerRecord) -> bool {
    let Some(filter) = filter else { return true };
    let state = match &container.state {
        ContainerState::Created => WireState::ContainerCreated,
        ContainerState::Running { .. } => WireState::ContainerRunning,
        ContainerState::Exited(_) => WireState::ContainerExited,
    };
    filter.state.is_none_or(|asked| asked.state == state as i32)
        && container.id.as_str().starts_with(&filter.id)
        && container.pod.as_str().starts_with(&filter.pod_sandbox_id)
        && selects(&filter.label_selector, &container.config.labels)
}

/// Whether a container's figures are meant.
pub(super) fn container_stats(filter: Option<&ContainerStatsFilter>, container: &ContainerRecord) -> bool {
    let Some(filter) = filter else { return true };
    container.id.as_str().starts_with(&filter.id)
        && container.pod.as_str().starts_with(&filter.pod_sandbox_id)
        && selects(&filter.label_selector, &container.config.labels)
}

fn selects(selector: &HashMap<String, String>, labels: &Map) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

//! The engine's records as the wire shows them.

use tripod_cri_api::v1::{
    Container, ContainerMetadata, ContainerResources, ContainerState as WireState, ContainerStatus, ContainerUser,
    ImageSpec, LinuxContainerUser, LinuxPodSandboxStatus, Namespace, NamespaceMode, NamespaceOption, PodIp, PodSandbox,
    PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};
use tripod_engine::{ContainerConfig, ContainerRecord, ContainerState, Exit, PidMode, PodConfig, PodRecord};

use super::{mounts, resources, signal, userns};

/// Who a pod is.
pub(crate) fn pod_metadata(config: &PodConfig) -> PodSandboxMetadata {
    PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    }
}

/// Who a container is.
pub(crate) fn metadata(config: &ContainerConfig) -> ContainerMetadata {
    ContainerMetadata { name: config.name.clone(), attempt: config.attempt }
}

/// A pod in a list.
pub(crate) fn pod_item(pod: &PodRecord) -> PodSandbox {
    PodSandbox {
        id: pod.id.to_string(),
        metadata: Some(pod_metadata(&pod.config)),
        state: pod_state(pod).into(),
        created_at: pod.created_at,
        labels: pod.config.labels.clone().into_iter().collect(),
        annotations: pod.config.annotations.clone().into_iter().collect(),
        runtime_handler: pod.config.runtime_handler.clone(),
    }
}

/// A pod's status. A pod on the host's network has no addresses of its own to tell.
pub(crate) fn pod_status(pod: &PodRecord) -> PodSandboxStatus {
    let mut ips = pod.ips.iter().map(ToString::to_string);
    PodSandboxStatus {
        id: pod.id.to_string(),
        metadata: Some(pod_metadata(&pod.config)),
        state: pod_state(pod).into(),
        created_at: pod.created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIp { ip }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(namespaces(&pod.config)) }) }),
        labels: pod.config.labels.clone().into_iter().collect(),
        annotations: pod.config.annotations.clone().into_iter().collect(),
        runtime_handler: pod.config.runtime_handler.clone(),
    }
}

fn pod_state(pod: &PodRecord) -> PodSandboxState {
    if pod.is_ready() { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
}

fn namespaces(config: &PodConfig) -> NamespaceOption {
    let mode = |host| if host { NamespaceMode::Node } else { NamespaceMode::Pod }.into();
    NamespaceOption {
        network: mode(config.namespaces.host_network),
        ipc: mode(config.namespaces.host_ipc),
        pid: match config.namespaces.pid {
            PidMode::Container => NamespaceMode::Container,
            PidMode::Pod => NamespaceMode::Pod,
            PidMode::Node => NamespaceMode::Node,
        }
        .into(),
        target_id: String::new(),
        userns_options: Some(userns::to_wire(config.namespaces.user)),
    }
}

/// A container in a list.
pub(crate) fn container_item(container: &ContainerRecord) -> Container {
    let config = &container.config;
    Container {
        id: container.id.to_string(),
        pod_sandbox_id: container.pod.to_string(),
        metadata: Some(metadata(config)),
        image: Some(image(config)),
        image_ref: config.image.reference.clone(),
        state: state(&container.state).into(),
        created_at: container.created_at,
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        image_id: config.image.id.clone(),
    }
}

/// A container's status.
pub(crate) fn container_status(container: &ContainerRecord) -> ContainerStatus {
    let config = &container.config;
    let times = Times::of(&container.state);
    let user = LinuxContainerUser {
        uid: container.credentials.uid.into(),
        gid: container.credentials.gid.into(),
        supplemental_groups: container.credentials.groups.iter().map(|group| i64::from(*group)).collect(),
    };
    let oom_score_adj = config.oom_score_adj.unwrap_or_default().into();
    ContainerStatus {
        id: container.id.to_string(),
        metadata: Some(metadata(config)),
        state: state(&container.state).into(),
        created_at: container.created_at,
        started_at: times.started_at,
        finished_at: times.finished_at,
        exit_code: times.exit_code,
        image: Some(image(config)),
        image_ref: config.image.reference.clone(),
        reason: times.reason,
        message: times.message,
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        mounts: config.mounts.iter().map(mounts::to_wire).collect(),
        log_path: config.log_path.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into_owned()),
        resources: Some(ContainerResources {
            linux: Some(resources::to_wire(&container.resources, oom_score_adj)),
            windows: None,
        }),
        image_id: config.image.id.clone(),
        user: Some(ContainerUser { linux: Some(user) }),
        stop_signal: signal::to_wire(signal::of_container(config)).into(),
    }
}

/// The image under the name that people know it by.
fn image(config: &ContainerConfig) -> ImageSpec {
    let image = &config.image;
    let name = if image.user_specified.is_empty() { &image.requested } else { &image.user_specified };
    ImageSpec { image: name.clone(), user_specified_image: image.user_specified.clone(), ..Default::default() }
}

fn state(state: &ContainerState) -> WireState {
    match state {
        ContainerState::Created => WireState::ContainerCreated,
        ContainerState::Running { .. } => WireState::ContainerRunning,
        ContainerState::Exited(_) => WireState::ContainerExited,
    }
}

#[derive(Default)]
struct Times {
    started_at: i64,
    finished_at: i64,
    exit_code: i32,
    reason: String,
    message: String,
}

impl Times {
    fn of(state: &ContainerState) -> Self {
        match state {
            ContainerState::Created => Self::default(),
            ContainerState::Running { started_at, .. } => Self { started_at: *started_at, ..Self::default() },
            ContainerState::Exited(Exit { started_at, finished_at, code, reason, message }) => Self {
                started_at: *started_at,
                finished_at: *finished_at,
                exit_code: *code,
                reason: reason.clone(),
                message: message.clone(),
            },
        }
    }
}

//! Requests as the kubelet makes them, to be changed by a test where it wants something else.

use std::collections::HashMap;

use tripod_cri_api::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, SecurityProfile, security_profile::ProfileType,
};

/// The image that every node has.
pub const BUSYBOX: &str = "registry.test/busybox:1";

/// Where logs of a pod go.
fn log_directory(name: &str) -> String {
    format!("/run/logs/{name}")
}

/// A pod on the built-in bridge.
pub fn pod(name: &str) -> PodSandboxConfig {
    with_network(name, NamespaceMode::Pod, name.to_owned())
}

/// A pod on the host's network.
pub fn host_pod(name: &str) -> PodSandboxConfig {
    with_network(name, NamespaceMode::Node, String::new())
}

fn with_network(name: &str, network: NamespaceMode, hostname: String) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "tests".to_owned(),
            attempt: 0,
        }),
        hostname,
        log_directory: log_directory(name),
        labels: HashMap::from([("app".to_owned(), name.to_owned())]),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(network)),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn namespaces(network: NamespaceMode) -> NamespaceOption {
    NamespaceOption {
        network: network.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

/// The security context of a container, to be changed.
pub fn security_of(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The same container without the profile of AppArmor that it would get where there is AppArmor: what is behind that
/// profile is what the test is about.
#[must_use]
pub fn unconfined(mut config: ContainerConfig) -> ContainerConfig {
    let profile = SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..SecurityProfile::default() };
    security_of(&mut config).apparmor = Some(profile);
    config
}

/// An image by its name.
pub fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() }
}

/// A container of the busybox image.
pub fn container(name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(image_spec(BUSYBOX)),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}/0.log"),
        labels: HashMap::from([("name".to_owned(), name.to_owned())]),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext::default()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container that runs a script.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    container(name, &["/bin/sh", "-c", script])
}

/// A volume from the host.
pub fn mount(host_path: &str, container_path: &str) -> Mount {
    Mount { host_path: host_path.to_owned(), container_path: container_path.to_owned(), ..Default::default() }
}

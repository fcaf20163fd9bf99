//! The runtime that is measured.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tonic::{
    Status,
    transport::{Channel, Endpoint, Error},
};
use tripod_cri_api::v1::{
    self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};

/// Clients of a runtime.
#[derive(Debug, Clone)]
pub struct Target {
    /// Pods and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
    /// The image of all containers.
    pub image: v1::ImageSpec,
}

/// What a container does.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Program and arguments.
    pub command: Vec<String>,
    /// What is mounted into it.
    pub mounts: Vec<v1::Mount>,
    /// Folder for its log, which has the name [`LOG`]; without one there is no log.
    pub logs: PathBuf,
}

/// A pod with its only container.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Of the pod sandbox.
    pub id: String,
    /// Of the container.
    pub container: String,
}

/// Name of a container's log in the pod's folder for logs.
pub const LOG: &str = "0.log";

/// Where a container has this program.
const INSIDE: &str = "/tripod-bench";

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Target {
    /// Connects to a socket, on first use.
    pub fn connect(socket: &Path, image: &str) -> Result<Self, Error> {
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect_lazy();
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
            image: v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() },
        })
    }

    /// Pulls the image.
    pub async fn pull(&self) -> Result<(), Status> {
        let request = v1::PullImageRequest { image: Some(self.image.clone()), ..v1::PullImageRequest::default() };
        self.images.clone().pull_image(request).await.map(drop)
    }

    /// A pod that nobody has made before.
    pub fn pod_config(&self, host_network: bool) -> v1::PodSandboxConfig {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = if host_network { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
        let namespaces = v1::NamespaceOption {
            network: network.into(),
            pid: v1::NamespaceMode::Container.into(),
            ..v1::NamespaceOption::default()
        };
        let security = v1::LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces),
            ..v1::LinuxSandboxSecurityContext::default()
        };
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: format!("bench-{number}"),
                uid: format!("bench-{}-{number}", std::process::id()),
                namespace: "bench".into(),
                attempt: 0,
            }),
            linux: Some(v1::LinuxPodSandboxConfig {
                security_context: Some(security),
                ..v1::LinuxPodSandboxConfig::default()
            }),
            ..v1::PodSandboxConfig::default()
        }
    }

    /// A container of a pod.
    pub fn container_config(&self, pod: &v1::PodSandboxConfig, workload: &Workload) -> v1::ContainerConfig {
        let options = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let namespaces = options.and_then(|security| security.namespace_options.clone());
        let security = v1::LinuxContainerSecurityContext {
            namespace_options: namespaces,
            ..v1::LinuxContainerSecurityContext::default()
        };
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(self.image.clone()),
            command: workload.command.clone(),
            mounts: workload.mounts.clone(),
            log_path: if workload.logs.as_os_str().is_empty() { String::new() } else { LOG.into() },
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(security),
                ..v1::LinuxContainerConfig::default()
            }),
            ..v1::ContainerConfig::default()
        }
    }

    /// Stops and removes a pod with all its containers.
    pub async fn remove_pod(&self, pod: &str) -> Result<(), Status> {
        let mut runtime = self.runtime.clone();
        runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.into() }).await?;
        runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod.into() }).await.map(drop)
    }

    /// A pod with a running container.
    pub async fn start_pod(&self, host_network: bool, workload: &Workload) -> Result<Pod, Status> {
        let mut runtime = self.runtime.clone();
        let mut config = self.pod_config(host_network);
        config.log_directory = workload.logs.display().to_string();
        let run = v1::RunPodSandboxRequest { config: Some(config.clone()), ..v1::RunPodSandboxRequest::default() };
        let pod = runtime.run_pod_sandbox(run).await?.into_inner().pod_sandbox_id;
        let create = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(self.container_config(&config, workload)),
            sandbox_config: Some(config),
        };
        let container = runtime.create_container(create).await?.into_inner().container_id;
        runtime.start_container(v1::StartContainerRequest { container_id: container.clone() }).await?;
        Ok(Pod { id: pod, container })
    }

    /// Pods that do nothing, on the host's network.
    pub async fn start_pods(&self, count: usize) -> Result<Vec<Pod>, Status> {
        let mut pods = Vec::new();
        for _ in 0..count {
            pods.push(self.start_pod(true, &Workload::default()).await?);
        }
        Ok(pods)
    }

    /// Removes pods, one after the other.
    pub async fn remove_pods(&self, pods: &[Pod]) -> Result<(), Status> {
        for pod in pods {
            self.remove_pod(&pod.id).await?;
        }
        Ok(())
    }
}

// === impl Workload ===

impl Default for Workload {
    fn default() -> Workload {
        Workload { command: vec!["sleep".into(), "1000".into()], mounts: Vec::new(), logs: PathBuf::new() }
    }
}

impl Workload {
    /// This very program in a container; `arguments` are those of [`crate::inside`]. It is linked statically, so that
    /// it runs in any image.
    pub fn inside(arguments: &[String]) -> io::Result<Workload> {
        let program = v1::Mount {
            host_path: std::env::current_exe()?.display().to_string(),
            container_path: INSIDE.into(),
            readonly: true,
            ..v1::Mount::default()
        };
        Ok(Workload { command: inside(arguments), mounts: vec![program], logs: PathBuf::new() })
    }
}

/// The command that runs this program in a container that has it.
pub fn inside(arguments: &[String]) -> Vec<String> {
    [INSIDE.to_owned(), "inside".to_owned()].into_iter().chain(arguments.iter().cloned()).collect()
}

//! A client of the Container Runtime Interface with the calls that tests make most.

use std::{path::Path, time::Duration};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tripod_cri_api::v1::{
    ContainerConfig, ContainerState, ContainerStatus, ContainerStatusRequest, CreateContainerRequest, ExecSyncRequest,
    ExecSyncResponse, Image, ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest,
    ListPodSandboxRequest, PodSandbox, PodSandboxConfig, PodSandboxStatus, PodSandboxStatusRequest, PullImageRequest,
    RemoveContainerRequest, RemoveImageRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, StopPodSandboxRequest, VersionRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};

use crate::{eventually, image_spec, patient};

/// The largest message, as the kubelet has it.
const MAX_MESSAGE: usize = 16 << 20;

/// Longest time of a call that is not told otherwise: no call of a test may hang.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Longest wait for a container's end.
const EXIT_LIMIT: Duration = Duration::from_secs(60);

/// A connection to a daemon.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
}

impl Cri {
    /// Connects when the first call is made.
    pub(crate) fn new(socket: &Path) -> Self {
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("a socket");
        Self { channel: endpoint.timeout(patient(CALL_LIMIT)).connect_lazy() }
    }

    /// The connection, for other clients.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// All calls of the runtime service.
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(2 * MAX_MESSAGE)
    }

    /// All calls of the image service.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Whether anybody answers.
    pub async fn answers(&self) -> bool {
        self.runtime().version(VersionRequest::default()).await.is_ok()
    }

    /// Pulls an image; gives its ID.
    pub async fn pull(&self, image: &str) -> Result<String, Status> {
        let request = PullImageRequest { image: Some(image_spec(image)), ..Default::default() };
        Ok(self.images().pull_image(request).await?.into_inner().image_ref)
    }

    /// What is known of an image.
    pub async fn image(&self, image: &str) -> Option<Image> {
        let request = ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        self.images().image_status(request).await.expect("ImageStatus").into_inner().image
    }

    /// All images.
    pub async fn all_images(&self) -> Vec<Image> {
        self.images().list_images(ListImagesRequest::default()).await.expect("ListImages").into_inner().images
    }

    /// Removes an image.
    pub async fn remove_image(&self, image: &str) -> Result<(), Status> {
        let image = Some(ImageSpec { image: image.to_owned(), ..Default::default() });
        self.images().remove_image(RemoveImageRequest { image }).await.map(drop)
    }

    /// Makes a pod, and the folder of its logs as the kubelet does.
    pub async fn run_pod(&self, config: &PodSandboxConfig) -> Result<String, Status> {
        self.run_pod_by("", config).await
    }

    /// The same with a RuntimeClass handler.
    pub async fn run_pod_by(&self, handler: &str, config: &PodSandboxConfig) -> Result<String, Status> {
        std::fs::create_dir_all(&config.log_directory).expect("make the folder of logs");
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.to_owned() };
        Ok(self.runtime().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// Stops a pod.
    pub async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        self.runtime().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }).await.map(drop)
    }

    /// Removes a pod.
    pub async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        self.runtime().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }).await.map(drop)
    }

    /// What is known of a pod.
    pub async fn pod(&self, id: &str) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        Ok(self.runtime().pod_sandbox_status(request).await?.into_inner().status.expect("a status"))
    }

    /// All pods.
    pub async fn pods(&self) -> Vec<PodSandbox> {
        self.runtime()
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await
            .expect("ListPodSandbox")
            .into_inner()
            .items
    }

    /// All containers' IDs.
    pub async fn containers(&self) -> Vec<String> {
        let list = self.runtime().list_containers(ListContainersRequest::default()).await.expect("ListContainers");
        list.into_inner().containers.into_iter().map(|container| container.id).collect()
    }

    /// Makes a container, and the folder of its log as the kubelet does.
    pub async fn create(
        &self,
        pod: &str,
        pod_config: &PodSandboxConfig,
        config: &ContainerConfig,
    ) -> Result<String, Status> {
        let log = Path::new(&pod_config.log_directory).join(&config.log_path);
        if let Some(folder) = log.parent().filter(|_| !config.log_path.is_empty()) {
            std::fs::create_dir_all(folder).expect("make the folder of a log");
        }
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        Ok(self.runtime().create_container(request).await?.into_inner().container_id)
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), Status> {
        self.runtime().start_container(StartContainerRequest { container_id: id.to_owned() }).await.map(drop)
    }

    /// Makes and starts a container.
    pub async fn run(
        &self,
        pod: &str,
        pod_config: &PodSandboxConfig,
        config: &ContainerConfig,
    ) -> Result<String, Status> {
        let id = self.create(pod, pod_config, config).await?;
        self.start(&id).await?;
        Ok(id)
    }

    /// Makes a pod with one container and starts it: their IDs.
    pub async fn run_in_pod(
        &self,
        pod_config: &PodSandboxConfig,
        config: &ContainerConfig,
    ) -> Result<(String, String), Status> {
        let pod = self.run_pod(pod_config).await?;
        let container = self.run(&pod, pod_config, config).await?;
        Ok((pod, container))
    }

    /// Stops a container with this many seconds of grace.
    pub async fn stop(&self, id: &str, timeout: i64) -> Result<(), Status> {
        self.runtime().stop_container(StopContainerRequest { container_id: id.to_owned(), timeout }).await.map(drop)
    }

    /// Removes a container.
    pub async fn remove(&self, id: &str) -> Result<(), Status> {
        self.runtime().remove_container(RemoveContainerRequest { container_id: id.to_owned() }).await.map(drop)
    }

    /// PID of a container's first process on the host, as the verbose status tells it.
    pub async fn pid(&self, id: &str) -> u64 {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let info = self.runtime().container_status(request).await.unwrap().into_inner().info;
        let pid = |text: &String| serde_json::from_str::<serde_json::Value>(text).ok()?.get("pid")?.as_u64();
        info.values().find_map(pid).unwrap_or_else(|| panic!("no PID in {info:?}"))
    }

    /// What is known of a container.
    pub async fn status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        Ok(self.runtime().container_status(request).await?.into_inner().status.expect("a status"))
    }

    /// Waits for the end of a container.
    pub async fn exited(&self, id: &str) -> ContainerStatus {
        eventually(&format!("the end of container {id}"), EXIT_LIMIT, async || {
            let status = self.status(id).await.expect("ContainerStatus");
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
        .await
    }

    /// Runs a container to its end and gives its status and the lines that it wrote.
    pub async fn outcome(
        &self,
        pod: &str,
        pod_config: &PodSandboxConfig,
        config: &ContainerConfig,
    ) -> Result<(ContainerStatus, String), Status> {
        let id = self.run(pod, pod_config, config).await?;
        let status = self.exited(&id).await;
        let text = log_text(&std::fs::read_to_string(&status.log_path).expect("read a log"));
        Ok((status, text))
    }

    /// Runs a command in a container.
    pub async fn exec(&self, id: &str, command: &[&str], timeout: i64) -> Result<ExecSyncResponse, Status> {
        let cmd = command.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        Ok(self.runtime().exec_sync(request).await?.into_inner())
    }

    /// Runs a script in a container and gives what it wrote; it must succeed.
    pub async fn sh(&self, id: &str, script: &str) -> String {
        let answer = self.exec(id, &["/bin/sh", "-c", script], 20).await.expect("ExecSync");
        let (stdout, stderr) = (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
        assert_eq!(answer.exit_code, 0, "{script}: {stdout}{stderr}");
        stdout.trim_end().to_owned()
    }
}

/// The text of a log without times and tags; the parts of long lines joined. A line that is still being written is none.
pub fn log_text(log: &str) -> String {
    let mut text = String::new();
    for line in log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut fields = line.splitn(4, ' ').skip(2);
        let (tag, part) = (fields.next().expect("a tag"), fields.next().expect("a text"));
        text.push_str(part);
        if tag == "F" {
            text.push('\n');
        }
    }
    text
}

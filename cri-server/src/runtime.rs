//! The runtime service: each call is checked and translated, handed to the engine, and its answer translated back.
//!
//! One file below this one for each group of calls. The engine's operations outlive their caller, so a call here just
//! waits; when the client hangs up, only the waiting ends.

mod containers;
mod events;
mod exec;
mod filter;
mod metrics;
mod pods;
mod rates;
mod sessions;
mod stats;
mod status;
mod streams;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures::stream::BoxStream;
pub(crate) use sessions::Sessions;
pub(crate) use status::version;
pub(crate) use streams::parts;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tripod_cri_api::v1::{self, runtime_service_server::RuntimeService};
use tripod_engine::{Engine, isolator::CgroupDriver, plugin::Features};

use crate::{
    compose::Parts,
    images::Images,
    status_code::{Reply, not_built},
};

/// A stream of answers.
type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// The runtime service.
#[derive(Debug)]
pub(crate) struct Runtime {
    engine: Arc<Engine>,
    images: Images,
    streaming: Arc<tripod_streaming::Server>,
    /// RuntimeClass handlers, the default one with the empty name.
    handlers: BTreeMap<String, Features>,
    /// What makes root filesystems.
    provisioner: String,
    /// Why no pod can have a user namespace, if so.
    no_user_namespaces: Option<String>,
    /// Who makes cgroups; the kubelet does likewise.
    driver: CgroupDriver,
    /// The effective configuration, for the verbose status.
    config: serde_json::Value,
    rates: rates::Rates,
    /// Becomes true when the daemon ends.
    stopped: watch::Receiver<bool>,
}

impl Runtime {
    /// A service over an engine, its images and the server to which clients of sessions are sent.
    pub(crate) fn new(
        parts: Parts,
        streaming: Arc<tripod_streaming::Server>,
        config: serde_json::Value,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let Parts { engine, images, handlers, provisioner, no_user_namespaces, driver } = parts;
        let rates = rates::Rates::default();
        Self { engine, images, streaming, handlers, provisioner, no_user_namespaces, driver, config, rates, stopped }
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// What a client can do until checkpoints are built.
const CHECKPOINTS: &str = "stop the container and start it anew";

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Reply<v1::VersionResponse> {
        Ok(Response::new(status::version()))
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Reply<v1::RunPodSandboxResponse> {
        let request = request.into_inner();
        self.run_pod(request).await.map(Response::new)
    }

    async fn stop_pod_sandbox(&self, request: Request<v1::StopPodSandboxRequest>) -> Reply<v1::StopPodSandboxResponse> {
        let request = request.into_inner();
        self.stop_pod(request).await.map(Response::new)
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Reply<v1::RemovePodSandboxResponse> {
        let request = request.into_inner();
        self.remove_pod(request).await.map(Response::new)
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Reply<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        self.pod_status(&request).map(Response::new)
    }

    async fn list_pod_sandbox(&self, request: Request<v1::ListPodSandboxRequest>) -> Reply<v1::ListPodSandboxResponse> {
        let request = request.into_inner();
        Ok(Response::new(v1::ListPodSandboxResponse { items: self.pods(request.filter.as_ref())? }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Reply<v1::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        self.note_pod_resources(&request).map(Response::new)
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Reply<v1::CreateContainerResponse> {
        let request = request.into_inner();
        self.create_container(request).await.map(Response::new)
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Reply<v1::StartContainerResponse> {
        let request = request.into_inner();
        self.start_container(request).await.map(Response::new)
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Reply<v1::StopContainerResponse> {
        let request = request.into_inner();
        self.stop_container(request).await.map(Response::new)
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Reply<v1::RemoveContainerResponse> {
        let request = request.into_inner();
        self.remove_container(request).await.map(Response::new)
    }

    async fn list_containers(&self, request: Request<v1::ListContainersRequest>) -> Reply<v1::ListContainersResponse> {
        let request = request.into_inner();
        Ok(Response::new(v1::ListContainersResponse { containers: self.containers(request.filter.as_ref())? }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Reply<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        self.container_status(&request).await.map(Response::new)
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Reply<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.update_container(request).await.map(Response::new)
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Reply<v1::ReopenContainerLogResponse> {
        let request = request.into_inner();
        self.reopen_log(request).await.map(Response::new)
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Reply<v1::ExecSyncResponse> {
        let request = request.into_inner();
        self.exec_sync(request).await.map(Response::new)
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Reply<v1::ExecResponse> {
        let request = request.into_inner();
        self.exec_url(request).map(Response::new)
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Reply<v1::AttachResponse> {
        let request = request.into_inner();
        self.attach_url(request).map(Response::new)
    }

    async fn port_forward(&self, request: Request<v1::PortForwardRequest>) -> Reply<v1::PortForwardResponse> {
        let request = request.into_inner();
        self.port_forward_url(&request).map(Response::new)
    }

    async fn container_stats(&self, request: Request<v1::ContainerStatsRequest>) -> Reply<v1::ContainerStatsResponse> {
        let request = request.into_inner();
        self.container_stats(request).await.map(Response::new)
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Reply<v1::ListContainerStatsResponse> {
        let request = request.into_inner();
        Ok(Response::new(v1::ListContainerStatsResponse {
            stats: self.containers_stats(request.filter.as_ref()).await?,
        }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Reply<v1::PodSandboxStatsResponse> {
        let request = request.into_inner();
        self.pod_stats(request).await.map(Response::new)
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Reply<v1::ListPodSandboxStatsResponse> {
        let request = request.into_inner();
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats: self.pods_stats(request.filter.as_ref()).await? }))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Reply<v1::ListMetricDescriptorsResponse> {
        Ok(Response::new(v1::ListMetricDescriptorsResponse { descriptors: metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Reply<v1::ListPodSandboxMetricsResponse> {
        Ok(Response::new(v1::ListPodSandboxMetricsResponse { pod_metrics: self.pods_metrics().await }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Reply<v1::StatusResponse> {
        let request = request.into_inner();
        self.runtime_status(request).await.map(Response::new)
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Reply<v1::RuntimeConfigResponse> {
        Ok(Response::new(status::runtime_config(self.driver)))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Reply<v1::UpdateRuntimeConfigResponse> {
        let request = request.into_inner();
        self.update_runtime_config(request).await.map(Response::new)
    }

    // === lists in parts ===

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Reply<Stream<v1::StreamPodSandboxesResponse>> {
        let request = request.into_inner();
        Ok(Response::new(streams::parts(self.pods(request.filter.as_ref())?, |pod_sandboxes| {
            v1::StreamPodSandboxesResponse { pod_sandboxes }
        })))
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Reply<Stream<v1::StreamContainersResponse>> {
        let request = request.into_inner();
        Ok(Response::new(streams::parts(self.containers(request.filter.as_ref())?, |containers| {
            v1::StreamContainersResponse { containers }
        })))
    }

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Reply<Stream<v1::StreamContainerStatsResponse>> {
        let request = request.into_inner();
        Ok(Response::new(streams::parts(self.containers_stats(request.filter.as_ref()).await?, |container_stats| {
            v1::StreamContainerStatsResponse { container_stats }
        })))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Reply<Stream<v1::StreamPodSandboxStatsResponse>> {
        let request = request.into_inner();
        Ok(Response::new(streams::parts(self.pods_stats(request.filter.as_ref()).await?, |pod_sandbox_stats| {
            v1::StreamPodSandboxStatsResponse { pod_sandbox_stats }
        })))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Reply<Stream<v1::StreamPodSandboxMetricsResponse>> {
        Ok(Response::new(streams::parts(self.pods_metrics().await, |pod_sandbox_metrics| {
            v1::StreamPodSandboxMetricsResponse { pod_sandbox_metrics }
        })))
    }

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Reply<Stream<v1::ContainerEventResponse>> {
        Ok(Response::new(events::stream(self.engine.subscribe(), self.stopped.clone())))
    }

    // === part of the contract, not of this build ===

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Reply<v1::CheckpointContainerResponse> {
        Err(not_built("CheckpointContainer", CHECKPOINTS))
    }

    async fn checkpoint_pod(&self, _: Request<v1::CheckpointPodRequest>) -> Reply<v1::CheckpointPodResponse> {
        Err(not_built("CheckpointPod", CHECKPOINTS))
    }

    async fn restore_pod(&self, _: Request<v1::RestorePodRequest>) -> Reply<v1::RestorePodResponse> {
        Err(not_built("RestorePod", CHECKPOINTS))
    }
}

//! Pods: run, stop, remove, show.

use std::collections::HashMap;

use tonic::Status;
use tripod_cri_api::v1::{
    PodSandbox, PodSandboxFilter, PodSandboxStatusRequest, PodSandboxStatusResponse, RemovePodSandboxRequest,
    RemovePodSandboxResponse, RunPodSandboxRequest, RunPodSandboxResponse, StopPodSandboxRequest,
    StopPodSandboxResponse, UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse,
};
use tripod_engine::{PodRecord, PodState};

use super::{Runtime, filter};
use crate::{convert, status_code::status};

impl Runtime {
    pub(super) async fn run_pod(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("run a pod: config is missing"))?;
        let config =
            convert::pod_config(&config, &request.runtime_handler, &self.handlers, self.no_user_namespaces.as_deref())?;
        let id = self.engine.run_pod(config).await.map_err(status)?;
        Ok(RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
    }

    pub(super) async fn stop_pod(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse, Status> {
        self.engine.stop_pod(&request.pod_sandbox_id).await.map_err(status)?;
        Ok(StopPodSandboxResponse {})
    }

    pub(super) async fn remove_pod(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, Status> {
        self.engine.remove_pod(&request.pod_sandbox_id).await.map_err(status)?;
        Ok(RemovePodSandboxResponse {})
    }

    /// A pod with its containers: a kubelet that works from events takes them from here.
    pub(super) fn pod_status(&self, request: &PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse, Status> {
        let timestamp = super::now();
        let pod = self.engine.pod(&request.pod_sandbox_id).map_err(status)?;
        let containers = self.engine.containers();
        let containers = containers.iter().filter(|container| container.pod == pod.id);
        Ok(PodSandboxStatusResponse {
            status: Some(convert::pod_status(&pod)),
            info: if request.verbose { info(&pod) } else { HashMap::new() },
            containers_statuses: containers.map(|container| convert::container_status(container)).collect(),
            timestamp,
        })
    }

    pub(super) fn pods(&self, filter: Option<&PodSandboxFilter>) -> Result<Vec<PodSandbox>, Status> {
        let pods = self.engine.pods();
        Ok(pods.iter().filter(|pod| filter::pod(filter, pod)).map(|pod| convert::pod_item(pod)).collect())
    }

    /// The kubelet has already written the pod's limits into the cgroup that it owns; there is nothing left to do.
    pub(super) fn note_pod_resources(
        &self,
        request: &UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Status> {
        let pod = self.engine.pod(&request.pod_sandbox_id).map_err(status)?;
        tracing::debug!(pod = %pod.id, overhead = ?request.overhead, resources = ?request.resources, "new limits of a pod");
        Ok(UpdatePodSandboxResourcesResponse {})
    }
}

fn info(pod: &PodRecord) -> HashMap<String, String> {
    let pid = match pod.state {
        PodState::Ready { shim_pid } => shim_pid,
        PodState::NotReady => 0,
    };
    let info = serde_json::json!({ "sandboxID": pod.id, "pid": pid, "config": pod.config, "ips": pod.ips });
    HashMap::from([("info".to_owned(), info.to_string())])
}

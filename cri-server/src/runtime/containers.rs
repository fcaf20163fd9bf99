//! Containers: create, start, stop, remove, change, show.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tonic::Status;
use tripod_cri_api::v1::{
    Container, ContainerFilter, ContainerStatusRequest, ContainerStatusResponse, CreateContainerRequest,
    CreateContainerResponse, RemoveContainerRequest, RemoveContainerResponse, ReopenContainerLogRequest,
    ReopenContainerLogResponse, StartContainerRequest, StartContainerResponse, StopContainerRequest,
    StopContainerResponse, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse,
};
use tripod_engine::{ContainerRecord, ContainerState};

use super::{Runtime, filter};
use crate::{convert, status_code::status};

impl Runtime {
    pub(super) async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Status> {
        let asked = request.config.ok_or_else(|| Status::invalid_argument("create a container: config is missing"))?;
        let pod = self.engine.pod(&request.pod_sandbox_id).map_err(status)?;
        let image = self.images.for_container(&convert::image_of(&asked)?)?;
        let mut volumes = BTreeMap::new();
        for (index, spec) in convert::volume_images(&asked)? {
            volumes.insert(index, self.images.for_volume(&spec)?);
        }
        let config = convert::container_config(&asked, &pod.config, image, volumes)?;
        let id = self.engine.create_container(pod.id.as_str(), config).await.map_err(status)?;
        Ok(CreateContainerResponse { container_id: id.to_string() })
    }

    pub(super) async fn start_container(
        &self,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse, Status> {
        self.engine.start_container(&request.container_id).await.map_err(status)?;
        Ok(StartContainerResponse {})
    }

    pub(super) async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Status> {
        let grace = Duration::from_secs(u64::try_from(request.timeout).map_err(|_| {
            let id = &request.container_id;
            Status::invalid_argument(format!("stop container {id}: timeout: {} must not be negative", request.timeout))
        })?);
        self.engine.stop_container(&request.container_id, grace).await.map_err(status)?;
        Ok(StopContainerResponse {})
    }

    pub(super) async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Status> {
        self.engine.remove_container(&request.container_id).await.map_err(status)?;
        Ok(RemoveContainerResponse {})
    }

    pub(super) fn containers(&self, filter: Option<&ContainerFilter>) -> Result<Vec<Container>, Status> {
        let containers = self.engine.containers();
        let meant = containers.iter().filter(|container| filter::container(filter, container));
        Ok(meant.map(|container| convert::container_item(container)).collect())
    }

    pub(super) async fn container_status(
        &self,
        request: &ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse, Status> {
        let container = self.engine.container(&request.container_id).map_err(status)?;
        Ok(ContainerStatusResponse {
            status: Some(convert::container_status(&container)),
            info: if request.verbose { self.info(&container).await } else { HashMap::new() },
        })
    }

    pub(super) async fn update_container(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Status> {
        let container = self.engine.container(&request.container_id).map_err(status)?;
        if request.windows.is_some() {
            let message = format!("container {}: windows: this is a Linux runtime", container.id);
            return Err(Status::invalid_argument(message));
        }
        if let Some(asked) = &request.linux {
            let changes = convert::update(&container.resources, asked)
                .map_err(|refusal| refusal.of(format_args!("container {}", container.id)))?;
            self.engine.update_container(container.id.as_str(), changes).await.map_err(status)?;
        }
        Ok(UpdateContainerResourcesResponse {})
    }

    pub(super) async fn reopen_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse, Status> {
        self.engine.reopen_log(&request.container_id).await.map_err(status)?;
        Ok(ReopenContainerLogResponse {})
    }

    /// Details for people: the PID that tools look for, what was asked for, and what came of it: the plan, and the same
    /// as an OCI runtime specification.
    async fn info(&self, container: &ContainerRecord) -> HashMap<String, String> {
        let pid = match container.state {
            ContainerState::Running { pid, .. } => pid,
            _ => 0,
        };
        // A profile may have been removed since; that is no reason to say nothing.
        let spec = self.engine.spec(container.id.as_str()).await;
        let spec = spec.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }));
        let info = serde_json::json!({
            "sandboxID": container.pod,
            "pid": pid,
            "config": container.config,
            "plan": self.engine.plan(container.id.as_str()).ok(),
            "runtimeSpec": spec,
        });
        HashMap::from([("info".to_owned(), info.to_string())])
    }
}

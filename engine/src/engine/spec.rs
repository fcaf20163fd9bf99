//! A container as an OCI runtime specification.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tripod_shim_protocol::{LaunchPlan, oci::bundle::USER_NAMESPACE};

use super::Engine;
use crate::{
    ContainerConfig, ContainerRecord, PodRecord, PodState, Result,
    spec::{Surroundings, spec},
};

impl Engine {
    /// The OCI runtime specification of a container, whatever launches it. What is mounted by no path of the host's is
    /// shown in the bundle, a folder that only containers of launcher `oci` and those with hooks have.
    pub async fn spec(&self, id: &str) -> Result<Value> {
        let container = self.index.container(id)?;
        let (record, plan) = (container.record(), container.plan());
        let pod = self.index.pod(record.pod.as_str())?.record();
        let bundle = match self.launcher(&pod.config.runtime_handler) {
            Ok(launcher) => launcher.bundle(&plan),
            Err(_) => None,
        };
        let bundle = bundle.unwrap_or_else(|| self.pod_dir(&pod.id).join("bundle").join(&container.id));
        self.spec_of(&record, &plan, &bundle).await
    }

    /// The plan, where its things are, and what isolators add.
    pub(super) async fn spec_of(&self, record: &ContainerRecord, plan: &LaunchPlan, bundle: &Path) -> Result<Value> {
        let pod = self.index.pod(record.pod.as_str())?.record();
        let mut spec = spec(plan, &surroundings(&pod, &record.config, bundle));
        for isolator in &self.plugins.isolators {
            isolator.spec(&record.config, plan, &mut spec).await.map_err(|error| error.during(isolator.name()))?;
        }
        Ok(spec)
    }
}

/// The pod's namespaces are those of its shim.
fn surroundings(pod: &PodRecord, config: &ContainerConfig, bundle: &Path) -> Surroundings {
    let own = |kind: &str| match pod.state {
        PodState::Ready { shim_pid } => Some(PathBuf::from(format!("/proc/{shim_pid}/ns/{kind}"))),
        PodState::NotReady => None,
    };
    let namespaces = pod.config.namespaces;
    Surroundings {
        network: own("net").filter(|_| !namespaces.host_network),
        ipc: own("ipc").filter(|_| !namespaces.host_ipc),
        uts: own("uts").filter(|_| !namespaces.host_network),
        user: namespaces.user.map(|ids| (bundle.join(USER_NAMESPACE), ids)),
        annotations: config.annotations.clone(),
        ..crate::spec::in_bundle(bundle)
    }
}

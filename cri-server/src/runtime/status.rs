//! Who the runtime is, how it fares, and what the kubelet has to follow.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use tonic::Status;
use tripod_cri_api::v1::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeCondition, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler,
    RuntimeHandlerFeatures, RuntimeStatus, StatusRequest, StatusResponse, UpdateRuntimeConfigRequest,
    UpdateRuntimeConfigResponse, VersionResponse,
};
use tripod_engine::{EngineStatus, isolator, plugin::Features};

use super::Runtime;
use crate::status_code::status;

/// Version of the kubelet's side of the interface, which has not moved since it was made.
const KUBE_API_VERSION: &str = "0.1.0";

/// The isolator whose readiness is the network's.
const NETWORK: &str = "network";

pub(crate) fn version() -> VersionResponse {
    VersionResponse {
        version: KUBE_API_VERSION.to_owned(),
        runtime_name: "tripod".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

pub(super) fn runtime_config(driver: isolator::CgroupDriver) -> RuntimeConfigResponse {
    let cgroup_driver = match driver {
        isolator::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
        isolator::CgroupDriver::Systemd => CgroupDriver::Systemd,
    };
    RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: cgroup_driver.into() }) }
}

impl Runtime {
    pub(super) async fn runtime_status(&self, request: StatusRequest) -> Result<StatusResponse, Status> {
        let engine = self.engine.status().await;
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions: conditions(&engine) }),
            info: if request.verbose { self.status_info(&engine) } else { HashMap::new() },
            runtime_handlers: handlers(&self.handlers),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: self.handlers.get("").is_some_and(|features| features.user_namespaces),
                mount_options: true,
            }),
        })
    }

    pub(super) async fn update_runtime_config(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse, Status> {
        let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        // The kubelet sends an empty range until the cluster has given it one.
        if !network.pod_cidr.is_empty() {
            self.engine.set_pod_cidr(&network.pod_cidr).await.map_err(status)?;
        }
        Ok(UpdateRuntimeConfigResponse {})
    }

    fn status_info(&self, engine: &EngineStatus) -> HashMap<String, String> {
        let details: serde_json::Map<_, _> =
            engine.details.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        HashMap::from([
            ("config".to_owned(), self.config.to_string()),
            ("provisioner".to_owned(), self.provisioner.clone()),
            ("writable_layers".to_owned(), self.images.service().accounts()),
            ("isolators".to_owned(), serde_json::Value::from(details).to_string()),
            ("operations".to_owned(), json!(self.engine.operations()).to_string()),
            ("pulls".to_owned(), json!(self.images.pulls()).to_string()),
        ])
    }
}

/// The two conditions that make a node ready. Pods on the host's network need everything but the network.
fn conditions(engine: &EngineStatus) -> Vec<RuntimeCondition> {
    let of = |kind: &str, network: bool| {
        let reasons: Vec<String> = engine
            .not_ready
            .iter()
            .filter(|(isolator, _)| (*isolator == NETWORK) == network)
            .map(|(isolator, why)| format!("{isolator}: {why}"))
            .collect();
        RuntimeCondition {
            r#type: format!("{kind}Ready"),
            status: reasons.is_empty(),
            reason: if reasons.is_empty() { String::new() } else { format!("{kind}NotReady") },
            message: reasons.join("; "),
        }
    };
    vec![of("Runtime", false), of("Network", true)]
}

fn handlers(all: &BTreeMap<String, Features>) -> Vec<RuntimeHandler> {
    // The default one, whose name is empty, comes first.
    all.iter()
        .map(|(name, features)| RuntimeHandler {
            name: name.clone(),
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: features.recursive_read_only,
                user_namespaces: features.user_namespaces,
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tripod_engine::{EngineStatus, plugin::Features};

    use super::{conditions, handlers, version};

    #[test]
    fn no_field_of_the_version_is_empty() {
        let version = version();
        assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1"));
        assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty());
    }

    #[test]
    fn a_network_that_is_not_ready_leaves_the_runtime_ready() {
        let not_ready = vec![("network", "no CNI configuration".to_owned())];
        let found = conditions(&EngineStatus { not_ready, ..EngineStatus::default() });
        assert_eq!((found[0].r#type.as_str(), found[0].status), ("RuntimeReady", true));
        assert_eq!((found[1].r#type.as_str(), found[1].status), ("NetworkReady", false));
        assert_eq!(found[1].reason, "NetworkNotReady");
        assert!(found[1].message.contains("no CNI configuration"));
    }

    #[test]
    fn the_default_handler_has_no_name() {
        let able = Features { recursive_read_only: true, ..Features::default() };
        let all = handlers(&[("kata".to_owned(), Features::default()), (String::new(), able)].into());
        let found = all.into_iter().map(|handler| (handler.name, handler.features.unwrap().recursive_read_only_mounts));
        assert_eq!(found.collect::<Vec<_>>(), [(String::new(), true), ("kata".to_owned(), false)]);
    }
}

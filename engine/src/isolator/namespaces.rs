//! Namespaces: which ones a pod has, and which of them a container uses.
//!
//! Network, IPC and UTS belong to the pod and are held by its shim; each container has its own mount namespace and,
//! as asked for, its own PID namespace.

use async_trait::async_trait;
use tripod_shim_protocol::{LaunchPlan, PidNamespace};

use super::invalid;
use crate::{
    ContainerPid, Error, Kind, PidMode, PodConfig, Result,
    plugin::{ContainerContext, Isolator, PodContext, PodSetup},
};

/// The longest host name that the kernel takes.
const MAX_HOSTNAME: usize = 64;

/// Decides on namespaces.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces;

#[async_trait]
impl Isolator for Namespaces {
    fn name(&self) -> &'static str {
        "namespaces"
    }

    async fn prepare_pod(&self, pod: PodContext<'_>, setup: &mut PodSetup) -> Result<()> {
        let wanted = pod.config.namespaces;
        setup.plan.private_ipc = !wanted.host_ipc;
        setup.plan.shared_pid = wanted.pid == PidMode::Pod;
        // A process that shares the host's network would be confused by a host name that does not belong to it.
        setup.plan.hostname = if wanted.host_network { None } else { Some(hostname(pod.config)?) };
        Ok(())
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let security = &container.config.security;
        plan.pid = pid(&security.pid, container.pod.config.namespaces.pid)?;
        // On v1 as on v2: it hides the names of the host's groups, and makes a mount of the hierarchies show just the
        // container's own part. Privileged containers (node agents, nested runtimes) have always seen the whole tree.
        plan.cgroup_namespace = !security.privileged;
        Ok(())
    }
}

/// The pod's host name: the one asked for, or else the host's.
pub(super) fn hostname(config: &PodConfig) -> Result<String> {
    let name = config.hostname.as_str();
    if name.is_empty() {
        return Ok(host_hostname());
    }
    if name.len() > MAX_HOSTNAME {
        return Err(invalid(format!("the host name {name:?} is longer than {MAX_HOSTNAME} bytes")));
    }
    // It becomes a line of /etc/hosts and a variable of the environment.
    if let Some(bad) = name.chars().find(|c| c.is_whitespace() || c.is_control() || *c == '#') {
        return Err(invalid(format!("the host name {name:?} contains {bad:?}")));
    }
    Ok(name.to_owned())
}

/// The host's own name.
pub(super) fn host_hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A container's PID namespace, in a pod whose mode is `pod`.
fn pid(wanted: &ContainerPid, pod: PidMode) -> Result<PidNamespace> {
    match (wanted, pod) {
        (ContainerPid::Container, _) => Ok(PidNamespace::Container),
        (ContainerPid::Target(container), _) if container.is_empty() => {
            Err(invalid("the PID namespace mode TARGET needs the ID of a container"))
        }
        (ContainerPid::Target(container), _) => Ok(PidNamespace::Target(container.clone())),
        (ContainerPid::Pod, PidMode::Pod) => Ok(PidNamespace::Pod),
        (ContainerPid::Node, PidMode::Node) => Ok(PidNamespace::Node),
        (ContainerPid::Pod, _) => Err(mismatch("POD", pod)),
        (ContainerPid::Node, _) => Err(mismatch("NODE", pod)),
    }
}

fn mismatch(container: &str, pod: PidMode) -> Error {
    let pod = match pod {
        PidMode::Container => "CONTAINER",
        PidMode::Pod => "POD",
        PidMode::Node => "NODE",
    };
    Error::new(
        Kind::InvalidArgument,
        format!(
            "the container asks for PID namespace mode {container}, but its pod was made with mode {pod}; \
             give both the same mode, or the container the mode CONTAINER"
        ),
    )
}

#[cfg(test)]
mod tests;

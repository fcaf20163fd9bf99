//! Device nodes in a container's `/dev`, and the rules of its device cgroup.

mod host;

use std::path::PathBuf;

use async_trait::async_trait;
use tripod_shim_protocol::{DeviceKind, DeviceNode, DeviceRule, LaunchPlan};

use super::{blocking, blocking::Progress, invalid, mounts};
use crate::{
    DeviceRequest, Result,
    plugin::{ContainerContext, Isolator},
};

/// Memory devices that every program expects, and the controlling terminal: name, major, minor. `console` and `ptmx`
/// are the shim's, which makes the terminals.
const DEFAULT_NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Character devices that a container may use without a node of its own: pseudo-terminals, their multiplexer, and
/// tun (VPNs make that node themselves, and every runtime lets them).
const DEFAULT_RULES: [(u32, Option<u32>); 3] = [(136, None), (5, Some(2)), (10, Some(200))];

/// Writes device nodes and rules.
#[derive(Debug, Clone, Copy)]
pub struct Devices;

#[async_trait]
impl Isolator for Devices {
    fn name(&self) -> &'static str {
        "devices"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let config = container.config;
        let mut nodes: Vec<_> = DEFAULT_NODES.into_iter().map(default_node).collect();
        let mut rules = default_rules();
        if config.security.privileged {
            let all = blocking::look(host::everything).await?;
            all.into_iter().for_each(|node| add(&mut nodes, node));
        }
        if !config.devices.is_empty() {
            let wanted = config.devices.clone();
            for (node, access) in blocking::look(move |progress| requested(&wanted, progress)).await? {
                rules.push(rule(Some(node.kind), Some(node.major), Some(node.minor), &access));
                add(&mut nodes, node);
            }
        }
        plan.resources.devices = if config.security.privileged { vec![rule(None, None, None, "rwm")] } else { rules };
        // Nodes in a /dev that belongs to the host would be made on the host.
        if !mounts::brings_dev(&config.mounts) {
            plan.devices = nodes;
        }
        Ok(())
    }
}

/// The devices of a request, each with the access that was asked for.
fn requested(wanted: &[DeviceRequest], progress: &Progress) -> Result<Vec<(DeviceNode, String)>> {
    let mut found = Vec::new();
    for request in wanted {
        let path = request.host_path.display();
        progress.set(format!("the device {path}"));
        let access = access(&request.permissions)
            .ok_or_else(|| invalid(format!("the permissions {:?} of the device {path}", request.permissions)))
            .map_err(|e| e.during("only r, w and m can be asked for, each once"))?;
        let target = mounts::target(&request.container_path).ok_or_else(|| {
            let target = request.container_path.display();
            invalid(format!("the path {target} of the device {path} in the container is not absolute or has `..`"))
        })?;
        found.extend(host::find(&request.host_path, &target)?.into_iter().map(|node| (node, access.clone())));
    }
    Ok(found)
}

/// Permissions in the kernel's spelling; none at all means all.
fn access(permissions: &str) -> Option<String> {
    let mut seen = String::new();
    for letter in permissions.chars() {
        if !"rwm".contains(letter) || seen.contains(letter) {
            return None;
        }
        seen.push(letter);
    }
    Some(if seen.is_empty() { "rwm".to_owned() } else { seen })
}

/// A later node replaces an earlier one at the same path.
fn add(nodes: &mut Vec<DeviceNode>, node: DeviceNode) {
    match nodes.iter_mut().find(|known| known.path == node.path) {
        Some(known) => *known = node,
        None => nodes.push(node),
    }
}

fn default_node((name, major, minor): (&str, u32, u32)) -> DeviceNode {
    let path = PathBuf::from("/dev").join(name);
    DeviceNode { path, kind: DeviceKind::Char, major, minor, mode: 0o666, uid: 0, gid: 0 }
}

/// Any node may be made, for images and packages contain some; only these may be used.
fn default_rules() -> Vec<DeviceRule> {
    let mut rules = vec![rule(Some(DeviceKind::Char), None, None, "m"), rule(Some(DeviceKind::Block), None, None, "m")];
    let nodes = DEFAULT_NODES.into_iter().map(|(_, major, minor)| (major, Some(minor)));
    let usable = nodes.chain(DEFAULT_RULES);
    rules.extend(usable.map(|(major, minor)| rule(Some(DeviceKind::Char), Some(major), minor, "rwm")));
    rules
}

fn rule(kind: Option<DeviceKind>, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
    DeviceRule { allow: true, kind, major, minor, access: access.to_owned() }
}

#[cfg(test)]
mod tests;

//! A launch plan as an OCI runtime specification (`config.json`): for launcher `oci`, and for people who want to read it.
//!
//! The plan says what the container is, [`Surroundings`] where the things stand that travel beside a plan. Isolators
//! add what a plan has only in the kernel's own form ([`crate::plugin::Isolator::spec`]).

mod hooks;
mod mounts;
mod process;
mod resources;

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tripod_shim_protocol::{DeviceKind, DeviceNode, IdRange, LaunchPlan, PidNamespace, UserMapping};

/// The version of the specification that is written: the first that has recursive read-only mounts.
const VERSION: &str = "1.1.0";

/// Where a runtime finds what a plan has no path for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The root filesystem.
    pub rootfs: PathBuf,
    /// The pod's shared memory.
    pub shm: PathBuf,
    /// Folder of the mounts that travel as descriptors, each under its index.
    pub volumes: PathBuf,
    /// File of the pod's network namespace; `None` is the host's.
    pub network: Option<PathBuf>,
    /// File of the pod's IPC namespace; `None` is the host's.
    pub ipc: Option<PathBuf>,
    /// File of the pod's UTS namespace; `None` is the host's.
    pub uts: Option<PathBuf>,
    /// File of the pod's user namespace and its IDs; `None` is the host's.
    pub user: Option<(PathBuf, UserMapping)>,
    /// File of the PID namespace that the container joins, if it joins one.
    pub pid: PathBuf,
    /// The container's annotations.
    pub annotations: crate::Map,
}

/// The places in a bundle, the folder from which a runtime makes a container.
pub fn in_bundle(bundle: &std::path::Path) -> Surroundings {
    Surroundings {
        rootfs: bundle.join("rootfs"),
        shm: bundle.join("shm"),
        volumes: bundle.join("volumes"),
        pid: bundle.join("pid"),
        ..Surroundings::default()
    }
}

/// The specification of a container.
pub fn spec(plan: &LaunchPlan, around: &Surroundings) -> Value {
    let mut spec = json!({
        "ociVersion": VERSION,
        "process": process::process(&plan.process),
        "root": { "path": around.rootfs, "readonly": plan.rootfs.read_only },
        "mounts": plan.mounts.iter().map(|mount| mounts::mount(mount, around)).collect::<Vec<_>>(),
        "annotations": around.annotations,
        "linux": linux(plan, around),
    });
    if !plan.hooks.is_empty() {
        spec["hooks"] = hooks::hooks(&plan.hooks);
    }
    spec
}

fn linux(plan: &LaunchPlan, around: &Surroundings) -> Value {
    let mut linux = json!({
        "namespaces": namespaces(plan, around),
        "devices": plan.devices.iter().map(device).collect::<Vec<_>>(),
        "resources": resources::resources(&plan.resources, plan.cgroups.unified),
        "maskedPaths": plan.masked_paths,
        "readonlyPaths": plan.read_only_paths,
    });
    if let Some((_, ids)) = &around.user {
        linux["uidMappings"] = mapping(ids.uids);
        linux["gidMappings"] = mapping(ids.gids);
    }
    if let Some(label) = &plan.mount_label {
        linux["mountLabel"] = label.as_str().into();
    }
    if let Some(propagation) = mounts::of_root(plan) {
        linux["rootfsPropagation"] = propagation.into();
    }
    linux
}

fn namespaces(plan: &LaunchPlan, around: &Surroundings) -> Vec<Value> {
    let new = |kind: &str| json!({ "type": kind });
    let joined = |kind: &str, path: &PathBuf| json!({ "type": kind, "path": path });
    let mut all = vec![new("mount")];
    match plan.pid {
        PidNamespace::Container => all.push(new("pid")),
        PidNamespace::Pod | PidNamespace::Target(_) => all.push(joined("pid", &around.pid)),
        PidNamespace::Node => {}
    }
    let pod = [("network", &around.network), ("ipc", &around.ipc), ("uts", &around.uts)];
    all.extend(pod.into_iter().filter_map(|(kind, path)| Some(joined(kind, path.as_ref()?))));
    if let Some((path, _)) = &around.user {
        all.push(joined("user", path));
    }
    if plan.cgroup_namespace {
        all.push(new("cgroup"));
    }
    all
}

/// Some runtimes want to be told the IDs of a namespace that they join.
fn mapping(ids: IdRange) -> Value {
    json!([{ "containerID": 0, "hostID": ids.host, "size": ids.length }])
}

fn device(device: &DeviceNode) -> Value {
    json!({
        "path": device.path,
        "type": kind(device.kind),
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    })
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Char => "c",
        DeviceKind::Block => "b",
    }
}

/// An object without the members that are null: absent and null are not the same for every reader.
fn present(members: Value) -> Value {
    match members {
        Value::Object(members) => {
            members.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;

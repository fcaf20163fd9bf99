//! The launch plan of a container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Hook, Mount, ProcessPlan, Resources};

/// All that a launcher needs to start a container. Isolators write it, launchers carry it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Container ID.
    pub container: String,
    /// The container's first process.
    pub process: ProcessPlan,
    /// Its PID namespace. Network, IPC and UTS are those of the pod.
    #[serde(default)]
    pub pid: PidNamespace,
    /// A cgroup namespace rooted in the container's own cgroup.
    #[serde(default)]
    pub cgroup_namespace: bool,
    /// How the root filesystem is mounted.
    #[serde(default)]
    pub rootfs: RootfsPlan,
    /// Mounts, in order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// SELinux label of the filesystems that are made for the container.
    #[serde(default)]
    pub mount_label: Option<String>,
    /// Device nodes to make in `/dev`.
    #[serde(default)]
    pub devices: Vec<DeviceNode>,
    /// Paths inside the container to hide.
    #[serde(default)]
    pub masked_paths: Vec<PathBuf>,
    /// Paths inside the container to make read-only.
    #[serde(default)]
    pub read_only_paths: Vec<PathBuf>,
    /// Cgroups to start in; they exist, with all limits set, before the shim gets the plan.
    #[serde(default)]
    pub cgroups: CgroupPlan,
    /// The limits that were set there; the shim does not read them.
    #[serde(default)]
    pub resources: Resources,
    /// Programs of the host that take part. The shim runs them only as part of a [`crate::HookedPlan`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Where output goes.
    #[serde(default)]
    pub log: Option<LogTarget>,
    /// Keeps a pipe (or the terminal) open as standard input; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Closes standard input after the first client that attached to it has gone.
    #[serde(default)]
    pub stdin_once: bool,
    /// Signal number that asks the container to stop.
    #[serde(default)]
    pub stop_signal: i32,
}

/// PID namespace of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Container,
    /// The pod's shared one ([`crate::PodPlan::shared_pid`]).
    Pod,
    /// The host's.
    Node,
    /// That of another container of the same pod (ephemeral debug containers).
    Target(String),
}

/// The root filesystem, whose detached mount travels as the plan's file descriptor 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootfsPlan {
    /// Mounted read-only.
    pub read_only: bool,
}

/// A device node inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute path inside the container.
    pub path: PathBuf,
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// The cgroup directories of a container, on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// v2: the one directory. v1: one a hierarchy. A child joins all of them before it does anything else.
    pub dirs: Vec<PathBuf>,
    /// The directories are in the unified (v2) tree, so that a child can be born there (`CLONE_INTO_CGROUP`).
    pub unified: bool,
}

/// The log file of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    /// Absolute path on the host. Parent folders are made.
    pub path: PathBuf,
}

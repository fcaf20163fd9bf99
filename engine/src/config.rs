//! What a pod and a container were asked to be: checked, plain, and kept as it was asked for.
//!
//! The CRI server makes these from requests and refuses what cannot be; isolators turn them into plans.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tripod_shim_protocol::{Capability, Propagation, Resources, Rlimit, UserMapping};

/// Labels or annotations.
pub type Map = BTreeMap<String, String>;

/// A pod sandbox as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodConfig {
    /// Name in Kubernetes.
    pub name: String,
    /// UID in Kubernetes.
    pub uid: String,
    /// Namespace in Kubernetes.
    pub namespace: String,
    /// How often kubelet has made this sandbox before.
    pub attempt: u32,
    /// Host name; empty for the host's.
    pub hostname: String,
    /// Folder of the containers' logs.
    pub log_directory: Option<PathBuf>,
    /// Resolver configuration; `None` copies the host's.
    pub dns: Option<DnsConfig>,
    /// Ports of the host that lead to the pod.
    pub ports: Vec<PortMapping>,
    /// Labels.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
    /// Cgroup below which the pod's containers live, as `/kubepods/…`; `None` for tripod's own.
    pub cgroup_parent: Option<String>,
    /// Namespaces of the pod.
    pub namespaces: PodNamespaces,
    /// Sysctls of the pod's namespaces.
    pub sysctls: Map,
    /// SELinux label of its containers.
    pub selinux: SelinuxOptions,
    /// The pod may hold privileged containers.
    pub privileged: bool,
    /// RuntimeClass handler; empty is the default one.
    pub runtime_handler: String,
}

/// Which namespaces of a pod are its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodNamespaces {
    /// The host's network.
    pub host_network: bool,
    /// The host's IPC.
    pub host_ipc: bool,
    /// PID namespace of its containers.
    pub pid: PidMode,
    /// A user namespace of its own with these IDs; `None` is the host's.
    pub user: Option<UserMapping>,
}

/// PID namespace of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerPid {
    /// Its own.
    #[default]
    Container,
    /// Shared by the pod.
    Pod,
    /// The host's.
    Node,
    /// That of another container of the pod.
    Target(String),
}

/// PID namespace of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PidMode {
    /// Each container has its own.
    #[default]
    Container,
    /// One for the pod.
    Pod,
    /// The host's.
    Node,
}

/// Resolver configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options, as `ndots:5`.
    pub options: Vec<String>,
}

/// A port of the host that leads to the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the host.
    pub host_port: u16,
    /// Address of the host; `None` is all of both families.
    pub host_ip: Option<IpAddr>,
}

/// Transport protocols of a port.
#[allow(missing_docs, reason = "the names say it")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A container as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Name in the pod.
    pub name: String,
    /// How often kubelet has made this container before.
    pub attempt: u32,
    /// The image.
    pub image: ContainerImage,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Replaces the image's working directory; empty keeps it.
    pub working_dir: String,
    /// Environment, in order, on top of the image's.
    pub env: Vec<(String, String)>,
    /// Volumes.
    pub mounts: Vec<VolumeMount>,
    /// Devices of the host.
    pub devices: Vec<DeviceRequest>,
    /// Labels.
    pub labels: Map,
    /// Annotations.
    pub annotations: Map,
    /// Absolute path of the log.
    pub log_path: Option<PathBuf>,
    /// Keeps standard input open.
    pub stdin: bool,
    /// Closes standard input after the first attach.
    pub stdin_once: bool,
    /// Runs on a terminal.
    pub terminal: bool,
    /// Limits.
    pub resources: Resources,
    /// Badness for the OOM killer.
    pub oom_score_adj: Option<i32>,
    /// Security.
    pub security: Security,
    /// Resource limits of its processes.
    pub rlimits: Vec<Rlimit>,
    /// Signal that asks it to stop, in place of the image's.
    pub stop_signal: Option<i32>,
}

/// The image of a container, resolved when the container was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerImage {
    /// Image ID: digest of its configuration, `sha256:…`.
    pub id: String,
    /// The image as the request named it.
    pub requested: String,
    /// The name that the user wrote in the pod's specification, if kubelet told it.
    pub user_specified: String,
    /// Repository digest if there is one, else the ID.
    pub reference: String,
    /// What the image says about processes.
    pub config: ImageConfig,
}

/// The parts of an image's configuration that a container inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Environment as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// Arguments.
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// User, as `name`, `uid`, `name:group` or `uid:gid`.
    pub user: String,
    /// Signal that asks it to stop, as `SIGTERM` or a number.
    pub stop_signal: String,
}

/// A volume of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Path on the host; empty for an image volume.
    pub host_path: PathBuf,
    /// An image as a read-only volume.
    pub image: Option<ImageVolume>,
    /// Read-only.
    pub read_only: bool,
    /// Read-only for every mount below it too.
    pub recursive_read_only: bool,
    /// Change SELinux labels.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: Option<Propagation>,
    /// Shows the owners of its files as the pod's user namespace maps them.
    pub map_ids: bool,
    /// What may not be done with what lies in it.
    pub options: MountOptions,
}

/// Restrictions of a volume, for it and all that is mounted below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    /// Programs do not get the rights of their files' owners, or file capabilities.
    pub nosuid: bool,
    /// Device nodes lead nowhere.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

/// An image that is mounted as a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageVolume {
    /// Image ID.
    pub id: String,
    /// The image as the request named it.
    pub requested: String,
    /// Repository digest if there is one, else the ID.
    pub reference: String,
    /// Folder inside the image; empty is its root.
    pub sub_path: PathBuf,
}

/// A device of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// Path on the host: a device, or a folder of devices.
    pub host_path: PathBuf,
    /// Path in the container.
    pub container_path: PathBuf,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// Security of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// All capabilities, all devices, writable /sys.
    pub privileged: bool,
    /// Read-only root filesystem.
    pub read_only_rootfs: bool,
    /// Sets no_new_privs.
    pub no_new_privs: bool,
    /// Capabilities on top of the default; the number that the kernel gives each.
    pub add_capabilities: Vec<Capability>,
    /// Capabilities taken from the default; wins over what is added.
    pub drop_capabilities: Vec<Capability>,
    /// Capabilities for the ambient set.
    pub ambient_capabilities: Vec<Capability>,
    /// All capabilities are added.
    pub add_all_capabilities: bool,
    /// All capabilities are dropped, but for those added.
    pub drop_all_capabilities: bool,
    /// PID namespace.
    pub pid: ContainerPid,
    /// User ID, in place of the image's.
    pub uid: Option<u32>,
    /// Group ID, in place of the image's.
    pub gid: Option<u32>,
    /// User name, in place of the image's; looked up in the image.
    pub username: String,
    /// More groups.
    pub supplemental_groups: Vec<u32>,
    /// What the image's /etc/group adds to them.
    pub supplemental_groups_policy: GroupsPolicy,
    /// Filter for system calls; has no effect on a privileged container.
    pub seccomp: SeccompProfile,
    /// AppArmor profile.
    pub apparmor: AppArmorProfile,
    /// SELinux label, in place of the pod's.
    pub selinux: SelinuxOptions,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub read_only_paths: Vec<PathBuf>,
}

/// A seccomp profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompProfile {
    /// No filter.
    #[default]
    Unconfined,
    /// The one that comes with tripod.
    RuntimeDefault,
    /// A file on the node.
    Localhost(PathBuf),
}

impl fmt::Display for SeccompProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconfined => f.write_str("Unconfined"),
            Self::RuntimeDefault => f.write_str("RuntimeDefault"),
            Self::Localhost(path) => path.display().fmt(f),
        }
    }
}

/// An AppArmor profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppArmorProfile {
    /// Nothing was asked for: the default one where the node can have it.
    #[default]
    Unset,
    /// The one that comes with tripod.
    RuntimeDefault,
    /// One that is loaded on the node, by its name.
    Localhost(String),
    /// None.
    Unconfined,
}

/// Parts of a SELinux label; what is empty is left to the node's policy, and the level to tripod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelinuxOptions {
    /// User, as `system_u`.
    pub user: String,
    /// Role, as `system_r`.
    pub role: String,
    /// Type, as `container_t`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Level, as `s0:c1,c2`.
    pub level: String,
}

impl SelinuxOptions {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of the groups that the image's /etc/group gives to the user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupsPolicy {
    /// They are added.
    #[default]
    Merge,
    /// They are not.
    Strict,
}

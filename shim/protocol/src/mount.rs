//! Mounts inside a container.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One mount, made in the order in which the plan lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container; resolved inside the rootfs, made if absent.
    pub target: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Flags of this mount.
    #[serde(default)]
    pub flags: MountFlags,
    /// Propagation between this mount and its source; `None` is private.
    #[serde(default)]
    pub propagation: Option<Propagation>,
    /// Files show the owners that the pod's user namespace gives them: 0 on disk is root in the container. Only for
    /// sources of the host.
    #[serde(default)]
    pub map_ids: bool,
}

// === impl Mount ===

impl Mount {
    /// Whether, for a pod with a user namespace, it is made with the host's rights: the root of the pod can neither map
    /// owners nor make a sysfs of the host's network.
    pub fn takes_hosts_rights(&self) -> bool {
        match &self.source {
            MountSource::Filesystem { fstype, .. } => fstype == "sysfs",
            MountSource::Bind { .. } => self.map_ids,
            _ => false,
        }
    }

    /// Whether devices lie in it.
    pub fn is_dev(&self) -> bool {
        self.target == Path::new("/dev")
    }
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host, resolved on the host.
    Bind {
        /// Path on the host.
        path: PathBuf,
        /// With all mounts below it.
        recursive: bool,
    },
    /// A new filesystem: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, …
    Filesystem {
        /// Type as in `/proc/filesystems`.
        fstype: String,
        /// Options of the filesystem itself, given one by one to `fsconfig(2)`.
        options: Vec<FsOption>,
    },
    /// The pod's shared memory.
    PodShm,
    /// The container's cgroups: the unified tree, or all v1 hierarchies below a tmpfs.
    Cgroups,
    /// A detached mount that travels beside the plan: index among the plan's file descriptors (0 is the rootfs).
    Detached(usize),
}

/// An option of a filesystem: a flag, or a key with a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsOption {
    /// Name, as in `size`.
    pub key: String,
    /// Value, as in `65536k`; `None` for a flag.
    pub value: Option<String>,
}

/// Attributes of a mount point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountFlags {
    /// Read-only.
    pub read_only: bool,
    /// Read-only for every mount below it too.
    pub recursive_read_only: bool,
    /// No set-user-ID.
    pub nosuid: bool,
    /// No device nodes.
    pub nodev: bool,
    /// No execution.
    pub noexec: bool,
    /// A file that takes the place of a symbolic link at the target, which would be followed otherwise. OCI runtimes
    /// follow it all the same.
    pub over_link: bool,
}

/// How mounts made later on one side are seen on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// Neither side sees the other's.
    Private,
    /// The container sees the host's (rslave).
    HostToContainer,
    /// Both see each other's (rshared).
    Bidirectional,
}

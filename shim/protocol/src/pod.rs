//! What the shim needs to know to hold a pod.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A pod sandbox as the shim sees it. Sent once, as the first request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodPlan {
    /// Pod sandbox ID.
    pub pod: String,
    /// The pod's folder below the daemon's state folder; exit records are written to `DIR/exits/CONTAINER`.
    pub dir: PathBuf,
    /// File of the network namespace that the shim joins; `None` is the host's network.
    #[serde(default)]
    pub netns: Option<PathBuf>,
    /// A new IPC namespace for the pod; `false` is the host's.
    #[serde(default)]
    pub private_ipc: bool,
    /// A new UTS namespace for the pod with this host name; `None` is the host's.
    #[serde(default)]
    pub hostname: Option<String>,
    /// One PID namespace for all containers of the pod, with a reaper as PID 1.
    #[serde(default)]
    pub shared_pid: bool,
    /// Size of the pod's `/dev/shm` in bytes; `None` is the host's `/dev/shm`.
    #[serde(default)]
    pub shm_size: Option<u64>,
    /// SELinux label of the pod's `/dev/shm`.
    #[serde(default)]
    pub mount_label: Option<String>,
    /// Sysctls for the pod's own namespaces, in dotted form. Checked by the daemon.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
}

//! A process in a container: the container's first one, or one started by exec.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::SeccompFilter;

/// What runs, as whom, and with which rights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments. A program without a slash is searched in the `PATH` of `env`, inside the container.
    pub argv: Vec<String>,
    /// Environment as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Working directory inside the container; made if absent.
    pub cwd: PathBuf,
    /// User, groups and umask.
    pub credentials: Credentials,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Sets the no_new_privs bit.
    #[serde(default)]
    pub no_new_privs: bool,
    /// The filter for its system calls, loaded as the last thing before the program is executed.
    #[serde(default)]
    pub seccomp: Option<SeccompFilter>,
    /// Name of the AppArmor profile that confines the program; it is loaded. `None` leaves it to the kernel.
    #[serde(default)]
    pub apparmor: Option<String>,
    /// SELinux label of the program and its keyrings, as `user:role:type:level`. `None` leaves it to the kernel.
    #[serde(default)]
    pub selinux: Option<String>,
    /// Resource limits.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Badness for the OOM killer, -1000 to 1000; `None` is 0. What the kernel refuses is left as it is.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Allocates a pseudo-terminal and makes it the controlling terminal.
    #[serde(default)]
    pub terminal: bool,
}

/// A process to start in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// Name of this exec, unique in the pod.
    pub exec: String,
    /// The container to enter.
    pub container: String,
    /// What to run.
    pub process: ProcessPlan,
}

/// User and groups of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User ID.
    pub uid: u32,
    /// Primary group ID.
    pub gid: u32,
    /// Supplementary group IDs.
    pub groups: Vec<u32>,
    /// File mode creation mask; `None` is 0022.
    #[serde(default)]
    pub umask: Option<u32>,
}

/// A Linux capability by the number that the kernel gives it (`CAP_CHOWN` is 0).
pub type Capability = u8;

/// The five capability sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: Vec<Capability>,
    /// Permitted set.
    pub permitted: Vec<Capability>,
    /// Effective set.
    pub effective: Vec<Capability>,
    /// Inheritable set.
    pub inheritable: Vec<Capability>,
    /// Ambient set.
    pub ambient: Vec<Capability>,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The resource.
    pub resource: Resource,
    /// Soft limit; `u64::MAX` is no limit.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is no limit.
    pub hard: u64,
}

/// Resources that can be limited, with the names of `setrlimit(2)`.
#[allow(missing_docs, reason = "each is the constant of the same name in setrlimit(2)")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

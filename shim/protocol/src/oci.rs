//! A container that an OCI runtime makes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::LaunchPlan;

/// A launch plan, and who carries it out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciPlan {
    /// What the shim needs to know of the container: output, input, PID namespace, cgroups. How it is made stands in the
    /// bundle.
    pub plan: LaunchPlan,
    /// The runtime.
    pub runtime: OciRuntime,
    /// A folder with `config.json`, and the empty folders `rootfs`, `shm` and `volumes/N`, on which the shim puts the
    /// mounts that came with the plan; only the runtime sees them there.
    pub bundle: PathBuf,
}

/// A program with the command line of an OCI runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciRuntime {
    /// The program.
    pub program: PathBuf,
    /// Options before the command.
    #[serde(default)]
    pub args: Vec<String>,
    /// Where it keeps its state.
    pub root: PathBuf,
    /// Longest time of one call, in milliseconds.
    pub limit_ms: u64,
}

/// Names in a bundle.
pub mod bundle {
    use std::path::Path;

    /// What the container is.
    pub const CONFIG: &str = "config.json";
    /// Place of the root filesystem.
    pub const ROOTFS: &str = "rootfs";
    /// Place of the pod's shared memory.
    pub const SHM: &str = "shm";
    /// Places of mounts that travel as descriptors, each under its index in the plan.
    pub const VOLUMES: &str = "volumes";
    /// Link to the PID namespace that the container joins, made by the shim.
    pub const PID_NAMESPACE: &str = "pid";
    /// Link to the pod's user namespace, made by the shim.
    pub const USER_NAMESPACE: &str = "user";
    /// Places of what the shim makes for a pod with a user namespace, as a runtime cannot: mounts of the plan under their
    /// index, and devices as `device-N`. It also makes the places.
    pub const MADE: &str = "made";

    const OF_RUNTIMES: [&str; 6] = ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

    /// Whether a runtime adds this device to every container, from the host's `/dev` where no node can be made: for a pod
    /// with a user namespace the shim puts another one there.
    pub fn is_of_runtimes(device: &Path) -> bool {
        OF_RUNTIMES.iter().any(|path| device == Path::new(path))
    }

    /// Name in [`MADE`] of a device of the plan, by its index.
    pub fn device(index: usize) -> String {
        format!("device-{index}")
    }
}

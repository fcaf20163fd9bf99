//! What the daemon and `tripod-shim` say to each other.
//!
//! Plans are plain data: the daemon's isolators write them, the shim carries them out and decides nothing.
//! Messages are JSON behind a fixed header ([`frame`]), because a shim outlives the daemon that started it: an older
//! shim must still understand a newer daemon, and the other way round. New fields therefore come with a default, and
//! no field changes its meaning. What must not be left out by a shim that does not know it has a [`VERSION`].
#![forbid(unsafe_code)]

pub mod frame;
pub mod hook;
mod message;
mod mount;
pub mod oci;
mod plan;
mod pod;
mod process;
mod resources;
mod seccomp;
mod user;
mod version;
pub mod wire;

pub use hook::{Hook, HookStage, HookState, HookedPlan};
pub use message::{
    ContainerReport, Event, ExitRecord, Failure, FailureKind, FromShim, Reply, Request, RequestId, ToShim,
};
pub use mount::{FsOption, Mount, MountFlags, MountSource, Propagation};
pub use oci::{OciPlan, OciRuntime};
pub use plan::{CgroupPlan, DeviceKind, DeviceNode, LaunchPlan, LogTarget, PidNamespace, RootfsPlan};
pub use pod::PodPlan;
pub use process::{Capabilities, Capability, Credentials, ExecPlan, ProcessPlan, Resource, Rlimit};
pub use resources::{DeviceRule, Resources};
pub use seccomp::{SeccompFilter, SeccompListener};
pub use user::{IdRange, UserMapping, UserPlan};
pub use version::{VERSION, left_out};

/// Exit code that Kubernetes expects for a container that could not be started.
pub const EXIT_START_ERROR: i32 = 128;

//! The isolators that every tripod has: each one concern, each writing its part of the plans.
//!
//! Their order, see [`builtin`]:
//!
//! 1. `namespaces`, `sysctls`: which namespaces a pod has decides what may be set in them.
//! 2. *the network*, which is not here (it lives in a crate of its own): it makes the addresses.
//! 3. `files`: resolv.conf, hostname and hosts, which name those addresses. It mounts them into containers, so it
//!    stands before `mounts`, which sorts everything.
//! 4. `process`: program, environment, working directory.
//! 5. `credentials`: user and groups; adds `HOME` to the environment. Then `capabilities`, and `seccomp`,
//!    whose default profile depends on them, and `apparmor`.
//! 6. `mounts`, `selinux`, which labels them, `devices`, which looks at what is mounted over `/dev`.
//! 7. `cgroups`: last, because device rules are written by `devices`.
//! 8. [`Disk`], where the operator has set a limit: `cgroups` writes the other limits anew.
//! 9. [`Hooks`], where the operator has some: they look at what has become of the request.

mod apparmor;
mod blocking;
mod capabilities;
pub mod capability;
mod cgroups;
mod credentials;
mod devices;
mod disk;
mod files;
mod hooks;
mod mounts;
mod namespaces;
mod process;
mod seccomp;
mod selinux;
pub mod signal;
mod sysctls;
mod timezone;

use std::{path::Path, sync::Arc};

pub use apparmor::AppArmor;
pub use capabilities::Capabilities;
pub use cgroups::{CgroupConfig, CgroupDriver, Cgroups, merge_limits};
pub use credentials::Credentials;
pub use devices::Devices;
pub use disk::Disk;
pub use files::Files;
pub use hooks::Hooks;
pub use mounts::Mounts;
pub use namespaces::Namespaces;
pub use process::Process;
pub(crate) use process::set_default;
pub use seccomp::Seccomp;
pub use selinux::Selinux;
pub use sysctls::Sysctls;
pub use timezone::Timezone;

use crate::{ByHandler, Error, Kind, Limits, Result, plugin::Isolator};

/// The isolators of this module, ready to be composed: the network stands between the two lists.
#[derive(Debug, Clone)]
pub struct Builtin {
    /// Those before the network.
    pub before_network: Vec<Arc<dyn Isolator>>,
    /// Those after it.
    pub after_network: Vec<Arc<dyn Isolator>>,
    /// The cgroups, which the launcher needs too; they are in `after_network` as well.
    pub cgroups: Arc<Cgroups>,
}

/// Makes all isolators of this module. Daemons that run side by side need different bases of their cgroups. `state` is
/// the state folder.
pub fn builtin(cgroup: &CgroupConfig, state: &Path, limits: &ByHandler<Limits>) -> Result<Builtin> {
    let cgroups = Arc::new(Cgroups::discover(cgroup)?.with_limits(limits)?);
    Ok(Builtin {
        before_network: vec![Arc::new(Namespaces), Arc::new(Sysctls::new(limits))],
        after_network: vec![
            Arc::new(Files),
            Arc::new(Process::new(limits)),
            Arc::new(Credentials),
            Arc::new(Capabilities::new(limits)),
            Arc::new(Seccomp::new()),
            Arc::new(AppArmor::new()),
            Arc::new(Mounts::new()),
            Arc::new(Selinux::new(state)),
            Arc::new(Devices),
            Arc::clone(&cgroups) as Arc<dyn Isolator>,
        ],
        cgroups,
    })
}

/// A request that is wrong in itself.
fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod fixture;

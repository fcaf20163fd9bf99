//! Driver `systemd`: the cgroups of a pod lie in a scope that systemd made and then leaves alone.
//!
//! ```text
//! kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice   kubelet's
//!   tripod-POD.scope     systemd's, with Delegate=yes
//!     shim               the pod's shim: a scope without a process is no more
//!     CONTAINER …        ours, made and limited as with the other driver
//! ```
//!
//! What lies below a delegated unit is not systemd's: no reload writes limits or device rules there. And the counters of
//! a container outlast its processes, which those of a scope of its own would not.

mod bus;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CgroupError, file};
use crate::PodId;

pub use bus::BusError;
use bus::{Bus, Value};

/// The cgroup of the shim in the pod's scope.
pub const SHIM: &str = "shim";

/// A name of a unit has no more letters.
const MAX_NAME: usize = 255;

/// The path of a slice below the root, by its name: each `-` is a level.
pub fn slice(name: &str) -> Result<PathBuf, CgroupError> {
    let invalid = || CgroupError::Invalid(format!("{name:?} is not the name of a slice, like kubepods-pod1.slice"));
    let levels = name.strip_suffix(".slice").ok_or_else(invalid)?;
    if levels == "-" {
        return Ok(PathBuf::new());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\-".contains(&byte);
    if name.len() > MAX_NAME || !levels.bytes().all(plain) || levels.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let ends = levels.match_indices('-').map(|(at, _)| at).chain([levels.len()]);
    Ok(ends.map(|end| format!("{}.slice", &levels[..end])).collect())
}

/// The scope of a pod.
pub fn scope(base: &str, pod: &PodId) -> String {
    format!("{base}-{pod}.scope")
}

/// What a scope is to be. It has no limits: kubelet sets the pod's on the slice, and ours are on the containers.
fn properties(pod: &PodId, slice: &str, shim: i32) -> Vec<(&'static str, Value)> {
    vec![
        ("Description", Value::Text(format!("pod {pod}"))),
        ("Slice", Value::Text(slice.to_owned())),
        ("PIDs", Value::Numbers(vec![shim.unsigned_abs()])),
        ("Delegate", Value::Flag(true)),
        // Else a manager's default would count all processes of a pod against one limit.
        ("TasksMax", Value::Number(u64::MAX)),
        // At shutdown kubelet ends pods in its own order; what is left goes with everything else.
        ("DefaultDependencies", Value::Flag(false)),
        ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
    ]
}

/// Puts the shim of a pod into a scope in `slice`, ready for containers beside it. `mount` is where the tree is mounted.
pub fn adopt(mount: &Path, base: &str, pod: &PodId, slice: &str, shim: i32) -> Result<(), CgroupError> {
    let unit = scope(base, pod);
    Bus::connect().and_then(|mut bus| bus.start(&unit, &properties(pod, slice, shim))).map_err(CgroupError::Systemd)?;
    let dir = mount.join(self::slice(slice)?).join(&unit);
    let found = file::read(Path::new(&format!("/proc/{shim}/cgroup")))?;
    let is_there = found.lines().filter_map(|line| line.strip_prefix("0::/")).any(|path| mount.join(path) == dir);
    if !is_there {
        return Err(CgroupError::Elsewhere { unit, wanted: dir, found });
    }
    // Only a cgroup without processes passes controllers on.
    let own = dir.join(SHIM);
    fs::create_dir(&own).map_err(|error| CgroupError::io("making the cgroup", &own, error))?;
    file::write(&own.join("cgroup.procs"), &shim.to_string())
}

/// Ends the scope of a pod, if it is still there. It goes by itself once the shim and all containers have ended.
pub fn release(base: &str, pod: &PodId) -> Result<(), CgroupError> {
    Bus::connect().and_then(|mut bus| bus.stop(&scope(base, pod))).map_err(CgroupError::Systemd)
}

/// Whether systemd can be asked.
pub fn reach() -> Result<(), CgroupError> {
    Bus::connect().map(drop).map_err(CgroupError::Systemd)
}

/// The cgroups of containers in the scopes right below a slice of our own.
pub fn containers(slice: &Path) -> Vec<PathBuf> {
    let scopes = file::children(slice).unwrap_or_default().into_iter();
    let scopes = scopes.filter(|dir| dir.extension().is_some_and(|extension| extension == "scope"));
    let below = scopes.flat_map(|scope| file::children(&scope).unwrap_or_default());
    below.filter(|dir| dir.file_name().is_some_and(|name| name != SHIM)).collect()
}

#[cfg(test)]
mod tests;

//! Limits on what a container may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Resources of a container. `None` leaves the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// CPU time per period in microseconds; -1 is no limit.
    pub cpu_quota: Option<i64>,
    /// Length of a period in microseconds.
    pub cpu_period: Option<u64>,
    /// Relative weight, 2 to 262144 (v1 shares).
    pub cpu_shares: Option<u64>,
    /// CPUs, in the kernel's list format (`0-2,7`).
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, in the kernel's list format.
    pub cpuset_mems: Option<String>,
    /// Memory in bytes; -1 is no limit.
    pub memory_limit: Option<i64>,
    /// Memory and swap together in bytes; -1 is no limit.
    pub memory_swap: Option<i64>,
    /// Number of processes and threads; -1 is no limit.
    pub pids_limit: Option<i64>,
    /// Huge pages: size as the kernel names it (`2MB`) to bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// Files of the unified hierarchy, written as given (`memory.high` = `1G`).
    pub unified: BTreeMap<String, String>,
    /// Bytes that the writable layer may take; the daemon looks after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_limit: Option<u64>,
    /// Device access, applied in order onto a base of nothing.
    pub devices: Vec<DeviceRule>,
}

/// One rule of device access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `None` is both kinds.
    pub kind: Option<crate::DeviceKind>,
    /// `None` is every major number.
    pub major: Option<u32>,
    /// `None` is every minor number.
    pub minor: Option<u32>,
    /// Of `r`, `w`, `m`.
    pub access: String,
}

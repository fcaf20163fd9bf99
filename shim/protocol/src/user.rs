//! User namespaces: which IDs of the host the IDs of a pod are.

use std::fmt;

use serde::{Deserialize, Serialize};

/// IDs from 0 on in the pod, and where they lie on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host's ID that is 0 in the pod.
    pub host: u32,
    /// How many there are.
    pub length: u32,
}

/// The IDs of a pod with a user namespace of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMapping {
    /// Users.
    pub uids: IdRange,
    /// Groups.
    pub gids: IdRange,
}

/// The namespaces that a pod's user namespace is to own from the start; PID, mount and cgroup namespaces come with its
/// containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlan {
    /// Its IDs.
    pub mapping: UserMapping,
    /// A network namespace; `false` is the host's.
    #[serde(default)]
    pub network: bool,
    /// An IPC namespace; `false` is the host's.
    #[serde(default)]
    pub ipc: bool,
    /// A UTS namespace; `false` is the host's.
    #[serde(default)]
    pub uts: bool,
}

// === impl IdRange ===

impl IdRange {
    /// The host's ID for one of the pod's.
    pub fn to_host(self, id: u32) -> Option<u32> {
        if id < self.length { self.host.checked_add(id) } else { None }
    }

    /// As a line of `/proc/PID/uid_map`.
    pub fn line(self) -> String {
        format!("0 {} {}", self.host, self.length)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0 to {} (from {} on the host)", self.length.saturating_sub(1), self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_the_range_are_on_the_host() {
        let range = IdRange { host: 1000, length: 10 };
        assert_eq!((range.to_host(0), range.to_host(9), range.to_host(10)), (Some(1000), Some(1009), None));
        assert_eq!(IdRange { host: u32::MAX, length: 10 }.to_host(1), None);
        assert_eq!(
            (range.line().as_str(), range.to_string().as_str()),
            ("0 1000 10", "0 to 9 (from 1000 on the host)")
        );
    }
}

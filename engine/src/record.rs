//! What the engine remembers of pods and containers: the snapshots that reads are answered from, and the records on disk.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use tripod_shim_protocol::{Credentials, EXIT_START_ERROR, ExitRecord, Resources};

use crate::{ContainerConfig, ContainerId, Error, Kind, PodConfig, PodId, Result, plugin::Limitation};

/// A pod sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its ID.
    pub id: PodId,
    /// What was asked for.
    pub config: Arc<PodConfig>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Its state.
    pub state: PodState,
    /// Its addresses, the primary one first; empty on the host's network.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
}

/// State of a pod sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    /// Its shim holds its namespaces.
    Ready {
        /// PID of the shim.
        shim_pid: i32,
    },
    /// It was stopped, or its shim is gone.
    NotReady,
}

impl PodRecord {
    /// The name by which kubelet means this sandbox: one of each exists at a time.
    pub(crate) fn key(config: &PodConfig) -> String {
        format!("{}/{}/{}/{}", config.namespace, config.name, config.uid, config.attempt)
    }

    /// Whether containers can be made in it.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, PodState::Ready { .. })
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its ID.
    pub id: ContainerId,
    /// Its pod.
    pub pod: PodId,
    /// What was asked for.
    pub config: Arc<ContainerConfig>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Its state.
    pub state: ContainerState,
    /// The user that its first process runs as.
    pub credentials: Credentials,
    /// The limits that hold now.
    pub resources: Resources,
    /// The limit for which it is being killed, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limitation: Option<Limitation>,
}

/// State of a container. It only goes forward: created, running, exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its first process runs.
    Running {
        /// PID on the host.
        pid: i32,
        /// Nanoseconds since the epoch.
        started_at: i64,
    },
    /// It has ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Nanoseconds since the epoch; 0 if it never started.
    pub started_at: i64,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
    pub reason: String,
    /// For people; empty if there is nothing to say.
    pub message: String,
}

impl Exit {
    /// An end that the shim has seen.
    pub(crate) fn seen(record: &ExitRecord, limitation: Option<Limitation>) -> Self {
        let (reason, mut message) = match limitation {
            Some(Limitation { reason: Some(reason), message }) => (reason, message),
            _ if record.code == 0 => ("Completed".to_owned(), String::new()),
            limitation => ("Error".to_owned(), limitation.map_or_else(String::new, |limitation| limitation.message)),
        };
        if record.log_bytes_lost > 0 {
            let lost = format!("{} bytes of output could not be written to the log", record.log_bytes_lost);
            message = if message.is_empty() { lost } else { format!("{message}; {lost}") };
        }
        Self {
            started_at: record.started_at,
            finished_at: record.finished_at.max(record.started_at),
            code: record.code,
            reason,
            message,
        }
    }

    /// An end that nobody has seen: the shim or the whole node went away.
    pub(crate) fn unseen(started_at: i64, now: i64, message: &str) -> Self {
        Self {
            started_at,
            finished_at: now.max(started_at),
            code: 137,
            reason: "Error".into(),
            message: message.into(),
        }
    }

    /// A start that failed.
    pub(crate) fn start_error(now: i64, message: String) -> Self {
        Self { started_at: 0, finished_at: now, code: EXIT_START_ERROR, reason: "StartError".into(), message }
    }
}

impl ContainerRecord {
    /// The name by which kubelet means this container: one of each exists at a time.
    pub(crate) fn key(pod: &PodId, config: &ContainerConfig) -> String {
        format!("{pod}/{}/{}", config.name, config.attempt)
    }

    /// PID and start of a running container, or a clear error.
    pub(crate) fn running(&self, what: &str) -> Result<(i32, i64)> {
        match &self.state {
            ContainerState::Running { pid, started_at } => Ok((*pid, *started_at)),
            state => Err(Error::new(
                Kind::FailedPrecondition,
                format!("cannot {what} container {}: it is {}, not running", self.id, state.name()),
            )),
        }
    }
}

impl ContainerState {
    /// One word for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { .. } => "running",
            Self::Exited(_) => "exited",
        }
    }

    /// Whether this state may follow `before`: a container that has ended never runs again.
    pub(crate) fn may_follow(&self, before: &Self) -> bool {
        matches!(
            (before, self),
            (Self::Created, Self::Running { .. } | Self::Exited(_)) | (Self::Running { .. }, Self::Exited(_))
        )
    }
}

#[cfg(test)]
mod tests;

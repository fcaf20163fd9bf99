//! What can go wrong with cgroups.

use std::{io, path::PathBuf};

use super::{host::Controller, systemd::BusError};
use crate::{Error, Kind};

/// Errors of the cgroups isolator.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// no cgroups are mounted
    #[error("no cgroups are mounted on this host; mount cgroup2 at /sys/fs/cgroup")]
    NoCgroups,
    /// the name of tripod's own cgroup is not one
    #[error("{0:?} cannot be the name of tripod's cgroup: one component of letters, digits, `-` and `_`")]
    Base(String),
    /// a limit is wrong in itself
    #[error("{0}")]
    Invalid(String),
    /// the host lacks what a limit needs
    #[error("{what} needs the {controller} cgroup controller, which this host does not have; enable it in the kernel")]
    Missing {
        /// The controller.
        controller: Controller,
        /// What was asked for.
        what: &'static str,
    },
    /// the host is none for the systemd driver
    #[error(
        "cgroup.driver is systemd, which needs cgroup v2 alone, and this host has v1 hierarchies; set it to cgroupfs, \
         here and in kubelet's cgroupDriver"
    )]
    Legacy,
    /// systemd does not do its part
    #[error("{0}")]
    Systemd(super::systemd::BusError),
    /// systemd put a process where it was not expected
    #[error("the shim was to be put into {unit} at {wanted}, but it is in {found:?}")]
    Elsewhere {
        /// The scope.
        unit: String,
        /// Its cgroup.
        wanted: PathBuf,
        /// What the kernel says.
        found: String,
    },
    /// a limit cannot be lowered so far
    #[error("the memory limit {limit} is below the {usage} bytes that the container uses and cannot give back")]
    InUse {
        /// Bytes asked for.
        limit: u64,
        /// Bytes in use that cannot be reclaimed.
        usage: u64,
    },
    /// the kernel refused a value
    #[error("the kernel refused {value:?} for {path}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// processes do not end
    #[error("processes in the cgroup {path} do not end; are they waiting for a dead file server or device?")]
    StillAlive {
        /// The cgroup.
        path: PathBuf,
    },
    /// an operation on a cgroup failed
    #[error("{step} {path}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl CgroupError {
    /// An operation that failed.
    pub(super) fn io(step: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { step, path: path.into(), source: source.into() }
    }

    /// As it leaves this module.
    pub(super) fn outward(self) -> Error {
        let kind = match &self {
            Self::Base(_) | Self::Invalid(_) => Kind::InvalidArgument,
            Self::Refused { source, .. } if source.raw_os_error() == Some(16) => Kind::FailedPrecondition,
            Self::Refused { .. } => Kind::InvalidArgument,
            Self::Missing { .. } | Self::InUse { .. } => Kind::FailedPrecondition,
            Self::Legacy | Self::Systemd(BusError::Absent(_)) => Kind::FailedPrecondition,
            Self::Systemd(_) => Kind::Unavailable,
            Self::StillAlive { .. } => Kind::DeadlineExceeded,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Kind::ResourceExhausted,
            Self::NoCgroups | Self::Elsewhere { .. } | Self::Io { .. } => Kind::Internal,
        };
        Error::with(kind, "cgroups", self)
    }
}

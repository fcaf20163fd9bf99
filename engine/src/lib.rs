//! The core of tripod: pods, containers, plugin traits, launch plans, records and events.
#![forbid(unsafe_code)]

mod config;
mod engine;
mod error;
mod events;
mod id;
pub mod isolator;
pub mod launcher;
mod limits;
mod operation;
pub mod plugin;
mod record;
mod records;
pub mod shim;
pub mod spec;
mod undo;
pub mod usage;

pub use config::{
    AppArmorProfile, ContainerConfig, ContainerImage, ContainerPid, DeviceRequest, DnsConfig, GroupsPolicy,
    ImageConfig, ImageVolume, Map, MountOptions, PidMode, PodConfig, PodNamespaces, PortMapping, Protocol,
    SeccompProfile, Security, SelinuxOptions, VolumeMount,
};
pub use engine::{
    ContainerUsage, Engine, EngineOptions, EngineStatus, ExecOutput, Plugins, Session, SessionEnd, SessionStreams,
};
pub use error::{Error, Kind, Result};
pub use events::{EngineEvent, EventKind, EventStream};
pub use id::{ContainerId, PodId};
pub use limits::{ByHandler, Limits};
pub use operation::OperationStatus;
pub use record::{ContainerRecord, ContainerState, Exit, PodRecord, PodState};
pub use tripod_shim_protocol::{IdRange, UserMapping};

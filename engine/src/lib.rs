//! The core of tripod: pods, containers, plugin traits, launch plans, records and events.
#![forbid(unsafe_code)]

mod config;
mod error;
mod id;
pub mod plugin;
pub mod shim;
pub mod usage;

pub use config::{
    ContainerConfig, ContainerImage, ContainerPid, DeviceRequest, DnsConfig, GroupsPolicy, ImageConfig, ImageVolume,
    Map, PidMode, PodConfig, PodNamespaces, PortMapping, Protocol, Security, VolumeMount,
};
pub use error::{Error, Kind, Result};
pub use id::{ContainerId, PodId};

//! Translation between the wire's words and the engine's.
//!
//! Requests are checked here, completely: what cannot be done is refused with the field and the object named, never
//! ignored. Nothing here touches the system.

mod container;
mod image;
mod mounts;
mod pod;
mod refusal;
mod resources;
mod security;
mod signal;
mod status;
mod userns;

pub(crate) use container::{container_config, image_of, volume_images};
pub(crate) use image::{auth, image, image_details};
pub(crate) use pod::pod_config;
pub(crate) use refusal::Refusal;
use refusal::Refused;
pub(crate) use resources::update;
pub(crate) use status::{container_item, container_status, metadata, pod_item, pod_metadata, pod_status};

#[cfg(test)]
mod tests;

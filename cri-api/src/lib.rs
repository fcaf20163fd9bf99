//! The Container Runtime Interface, version 1, as of Kubernetes 0.37: the protobuf contract under `proto/` and the types,
//! clients and servers generated from it. Nothing here decides anything.
//!
//! * [`v1::runtime_service_server`] and [`v1::image_service_server`]: the traits that a runtime implements. Each call has
//!   a default that answers `UNIMPLEMENTED`, on which the kubelet and crictl know how to fall back.
//! * [`v1::runtime_service_client`] and [`v1::image_service_client`]: clients over any tonic channel.
//! * [`FILE_DESCRIPTOR_SET`]: the contract as data; `critest/contract` compares it with the upstream one.
//! * [`own`]: what tripod's own commands ask of the daemon on the same socket, because the interface has no calls for it.
//!
//! The words are ours, the wire is not: names, numbers and types may change only when the upstream contract does.

#![forbid(unsafe_code)]

pub mod own;
pub mod v1;

/// The whole contract as an encoded `google.protobuf.FileDescriptorSet`, without source locations.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

#[cfg(test)]
mod tests;

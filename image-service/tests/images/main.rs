//! The image service against real and faulty registries, on the real kernel. Needs root (overlay mounts, devices,
//! trusted attributes) and Debian's package docker-registry.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]
#![forbid(unsafe_code)]

mod archives;
mod bad_archives;
mod check;
mod compare;
mod dedup;
mod fake;
mod faults;
mod fixture;
mod grounds;
mod indexes;
mod layers;
mod matrix;
mod mirrors;
mod mounts;
mod oracle;
mod proxies;
mod ranges;
mod registry;
mod room;
mod root;
mod statuses;
mod store;
mod tls;
mod tokens;

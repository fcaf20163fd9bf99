//! Images: from a registry to a root filesystem.
//!
//! [`ImageService`] pulls images and keeps them; [`Overlay`] turns them into root filesystems for the engine, or [`Copy`]
//! where overlayfs cannot. Layers are
//! content-addressed, fetched once, unpacked once, and shared by all images and containers.
#![forbid(unsafe_code)]
#![allow(unexpected_cfgs, reason = "cargo-fuzz sets `fuzzing`")]

mod artifact;
mod catalog;
mod check;
mod config;
mod containers;
mod content;
mod copy;
mod digest;
mod disk;
mod error;
mod fetch;
mod figures;
mod flight;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gc;
mod image;
mod layers;
mod layout;
mod load;
mod manifest;
mod objects;
mod overlay;
mod platform;
mod policy;
mod program;
mod progress;
mod provisioner;
mod prune;
mod pull;
mod quota;
mod record;
mod reference;
mod registry;
mod room;
mod save;
mod service;
mod skeleton;
mod space;
mod sync;
mod trash;
mod unpack;
mod usage;

pub use catalog::Removed;
pub use check::{CheckEvent, CheckRequest, CheckSummary, Problem};
pub use config::{Config, Limits, Ranges, Timeouts, Verifiers};
pub use copy::Copy;
pub use digest::{Algorithm, Digest, InvalidDigest};
pub use disk::{Amount, DiskUsage, ImageUsage};
pub use figures::{BOUNDS, Durations, Figures, PULLED};
pub use image::{Image, ImageUser};
pub use load::LoadRequest;
pub use overlay::Overlay;
pub use progress::{LayerProgress, LayerState, PullProgress};
pub use provisioner::{Chosen, ProvisionerKind};
pub use prune::{PruneRequest, Pruned};
pub use pull::PullRequest;
pub use reference::{InvalidReference, Reference};
pub use registry::{auth::RegistryAuth, proxies::Proxies};
pub use save::{ArchiveFormat, SavedArchive};
pub use service::ImageService;
pub use space::{FsInfo, FsUsage};

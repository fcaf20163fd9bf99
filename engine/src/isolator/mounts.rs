//! The mounts of a container: the field's default ones, the pod's files that isolators before this one put into the
//! plan, and the volumes of the request; checked, and in an order in which no parent covers its child.

mod defaults;
mod source;
mod volume;

use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use tripod_shim_protocol::{LaunchPlan, Mount};

use super::{blocking, invalid};
use crate::{
    Result,
    plugin::{ContainerContext, Isolator},
};
use source::HostMounts;

/// Writes mounts, masked paths and read-only paths.
#[derive(Debug)]
pub struct Mounts {
    /// What is to be hidden where anything is.
    masked: Vec<PathBuf>,
}

impl Mounts {
    /// Looks at what the host has.
    pub fn new() -> Self {
        Self { masked: defaults::masked() }
    }

    /// A request's list, and what it lacks because it was made by an older client. An empty list stays so.
    fn masked(&self, mut asked: Vec<PathBuf>) -> Vec<PathBuf> {
        if !asked.is_empty() {
            let more: Vec<_> = self.masked.iter().filter(|path| !asked.contains(path)).cloned().collect();
            asked.extend(more);
        }
        asked
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Isolator for Mounts {
    fn name(&self) -> &'static str {
        "mounts"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let config = container.config;
        let mut own = std::mem::take(&mut plan.mounts);
        let volumes = volume::plan(&config.mounts)?;
        if config.mounts.iter().any(|volume| volume.image.is_none()) {
            let wanted = config.mounts.clone();
            blocking::look(move |progress| source::check(&wanted, progress, HostMounts::read)).await?;
        }
        own.extend(volumes);
        // Stable: among equals the later one of the request lies on top.
        own.sort_by_key(|mount| depth(&mount.target));
        plan.mounts = defaults::list(config.security.privileged);
        plan.mounts.retain(|default| !own.iter().any(|own| replaces(own, default)));
        plan.mounts.extend(own);
        // Kubelet sends the usual lists; none at all means none (procMount Unmasked).
        if !config.security.privileged {
            plan.masked_paths = self.masked(inside(&config.security.masked_paths)?);
            plan.read_only_paths = inside(&config.security.read_only_paths)?;
        }
        Ok(())
    }
}

/// Whether a mount of the request takes the place of a default one: at the same path, or all of `/dev`.
fn replaces(own: &Mount, default: &Mount) -> bool {
    same_path(&own.target, &default.target)
        || (same_path(&own.target, Path::new("/dev")) && default.target.starts_with("/dev"))
}

/// Whether two spellings are the same path (`/a//b/` and `/a/b`).
pub(super) fn same_path(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

/// Whether the container's `/dev` is one of the host's, where no device may be made.
pub(super) fn brings_dev(mounts: &[crate::VolumeMount]) -> bool {
    mounts.iter().any(|volume| same_path(&volume.container_path, Path::new("/dev")))
}

/// An absolute path without `..`, in its plain spelling.
pub(super) fn target(path: &Path) -> Option<PathBuf> {
    let plain: PathBuf = path.components().collect();
    let climbs = plain.components().any(|part| matches!(part, Component::ParentDir));
    let nul = path.as_os_str().as_encoded_bytes().contains(&0);
    (plain.is_absolute() && !climbs && !nul).then_some(plain)
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn inside(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let plain = |path: &PathBuf| {
        let bad = || invalid(format!("the masked or read-only path {} is not absolute or has `..`", path.display()));
        target(path).ok_or_else(bad)
    };
    paths.iter().map(plain).collect()
}

#[cfg(test)]
mod tests;

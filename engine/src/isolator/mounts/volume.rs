//! Volumes of the request, turned into mounts. Pure: nothing is looked at on the host here.

use std::path::Path;

use tripod_shim_protocol::{Mount, MountFlags, MountSource, Propagation};

use super::{invalid, target};
use crate::{Result, VolumeMount};

/// Files below /proc that may be mounted over: lxcfs shows containers their own numbers there. Anything else could
/// make a security module of the kernel read what the container wrote (CVE-2019-16884).
const PROC_FILES: [&str; 8] = ["cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime"];

/// The mounts for `volumes`, in their order. Image volumes are numbered from 1 in that order, as their detached mounts
/// travel beside the plan.
pub fn plan(volumes: &[VolumeMount]) -> Result<Vec<Mount>> {
    let mut images = 1..;
    volumes.iter().map(|volume| mount(volume, &mut images)).collect()
}

fn mount(volume: &VolumeMount, images: &mut impl Iterator<Item = usize>) -> Result<Mount> {
    let shown = volume.container_path.display();
    let refuse = |why: &str| invalid(format!("the volume at {shown}: {why}"));
    let target = target(&volume.container_path)
        .ok_or_else(|| refuse("its path in the container must be absolute and without `..`"))?;
    if target == Path::new("/") {
        return Err(refuse("a volume cannot replace the root of the container"));
    }
    check_proc(&target).map_err(refuse)?;
    check_read_only(volume).map_err(refuse)?;
    let propagation = volume.propagation.filter(|propagation| *propagation != Propagation::Private);
    let flags = MountFlags {
        read_only: volume.read_only,
        recursive_read_only: volume.recursive_read_only,
        nosuid: volume.options.nosuid,
        nodev: volume.options.nodev,
        noexec: volume.options.noexec,
        ..MountFlags::default()
    };
    if volume.image.is_none() {
        if !volume.host_path.is_absolute() {
            let path = volume.host_path.display();
            return Err(refuse(&format!(
                "its source on the host, {path:?}, must be absolute",
                path = path.to_string()
            )));
        }
        let source = MountSource::Bind { path: volume.host_path.clone(), recursive: true };
        return Ok(Mount { target, source, flags, propagation, map_ids: volume.map_ids });
    }
    if !volume.host_path.as_os_str().is_empty() || propagation.is_some() {
        return Err(refuse("an image volume has neither a source on the host nor propagation"));
    }
    // Kubernetes documents image volumes as read-only and without execution.
    let flags = MountFlags { read_only: true, nosuid: true, nodev: true, noexec: true, ..MountFlags::default() };
    let source = MountSource::Detached(images.next().unwrap_or_default());
    Ok(Mount { target, source, flags, propagation: None, map_ids: false })
}

fn check_proc(target: &Path) -> Result<(), &'static str> {
    match target.strip_prefix("/proc") {
        Ok(below) if below.as_os_str().is_empty() || PROC_FILES.iter().any(|file| below == Path::new(file)) => Ok(()),
        Ok(_) => Err("a volume cannot lie below /proc"),
        Err(_) => Ok(()),
    }
}

fn check_read_only(volume: &VolumeMount) -> Result<(), &'static str> {
    if !volume.recursive_read_only {
        return Ok(());
    }
    if !volume.read_only {
        return Err("recursive read-only needs read-only");
    }
    match volume.propagation {
        None | Some(Propagation::Private) => Ok(()),
        Some(_) => Err("recursive read-only needs private propagation"),
    }
}

//! Sources of volumes on the host: they must be there, and their mounts must be able to propagate where that is asked
//! for. Every call here may block on a dead file server; the caller sees to that.

use std::{fs, io, path::Path};

use rustix::fs::{AtFlags, CWD, StatxFlags, statfs, statx};
use tripod_shim_protocol::Propagation;

use super::{blocking::Progress, invalid};
use crate::{Error, Kind, Result, VolumeMount};

/// f_type of procfs.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Looks at the source of each volume that has one.
pub fn check(
    volumes: &[VolumeMount],
    progress: &Progress,
    host_mounts: impl Fn() -> io::Result<HostMounts>,
) -> Result<()> {
    let mut mounts = None;
    for volume in volumes.iter().filter(|volume| volume.image.is_none()) {
        progress.set(format!("the volume source {}", volume.host_path.display()));
        let mount = look(volume)?;
        let Some(wanted) = volume.propagation.filter(|wanted| *wanted != Propagation::Private) else { continue };
        if mounts.is_none() {
            mounts = Some(host_mounts().map_err(|e| Error::io("reading /proc/self/mountinfo", e))?);
        }
        let mode = mounts.as_ref().and_then(|mounts| mounts.mode(mount)).unwrap_or_default();
        propagates(volume, wanted, mode)?;
    }
    Ok(())
}

/// The ID of the mount that a source lies on.
fn look(volume: &VolumeMount) -> Result<u64> {
    let path = &volume.host_path;
    // A symlink of the host is followed, kubelet's /proc/PID/fd/N for subPaths included.
    let stat = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID | StatxFlags::TYPE).map_err(|e| {
        let (shown, target) = (path.display(), volume.container_path.display());
        match io::Error::from(e) {
            e if e.kind() == io::ErrorKind::NotFound => {
                invalid(format!("the volume source {shown} (for {target}) does not exist on the host; create it first"))
            }
            e => Error::io(format!("looking at the volume source {shown} (for {target})"), e),
        }
    })?;
    // Only another proc may lie over /proc, or the kernel could be made to read made-up files.
    if super::same_path(&volume.container_path, Path::new("/proc")) {
        let magic = statfs(path).map_err(|e| Error::io(format!("looking at {}", path.display()), e))?.f_type;
        if magic as i64 != PROC_SUPER_MAGIC {
            return Err(invalid(format!("{} cannot be mounted over /proc: it is no procfs", path.display())));
        }
    }
    Ok(stat.stx_mnt_id)
}

fn propagates(volume: &VolumeMount, wanted: Propagation, mode: Mode) -> Result<()> {
    let (fits, needed) = match wanted {
        Propagation::Private => return Ok(()),
        Propagation::HostToContainer => (mode.shared || mode.slave, "shared or slave"),
        Propagation::Bidirectional => (mode.shared, "shared"),
    };
    if fits {
        return Ok(());
    }
    let path = volume.host_path.display();
    Err(Error::new(
        Kind::FailedPrecondition,
        format!(
            "the volume source {path} must lie on a {needed} mount for this propagation; \
             `mount --make-rshared` the mount point that holds it"
        ),
    ))
}

/// Propagation of a mount of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// It is in a peer group.
    pub shared: bool,
    /// It receives from one.
    pub slave: bool,
}

/// The host's mounts by ID.
#[derive(Debug)]
pub struct HostMounts(String);

impl HostMounts {
    /// As the kernel lists them.
    pub fn read() -> io::Result<Self> {
        fs::read_to_string("/proc/self/mountinfo").map(Self)
    }

    /// How a mount propagates.
    fn mode(&self, id: u64) -> Option<Mode> {
        let line = self.0.lines().find(|line| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(id))?;
        // ID, parent, device, root, mount point, options, then optional fields up to a lone hyphen.
        let optional = || line.split(' ').skip(6).take_while(|field| *field != "-");
        let has = |tag: &str| optional().any(|field| field.starts_with(tag));
        Some(Mode { shared: has("shared:"), slave: has("master:") })
    }
}

#[cfg(test)]
impl From<&str> for HostMounts {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

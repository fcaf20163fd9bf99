//! Devices of the host: one, those of a folder, or all.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use tripod_shim_protocol::{DeviceKind, DeviceNode};

use super::{Progress, invalid};
use crate::{Error, Result};

/// Folders of /dev that hold no devices of the machine, but file systems and terminals of this very /dev.
const NOT_MACHINES: [&str; 9] = ["pts", "shm", "mqueue", "hugepages", "fd", ".udev", ".lxc", ".lxd-mounts", ".mdadm"];

/// Names in /dev that every container has its own of.
const OWN: [&str; 5] = ["console", "ptmx", "stdin", "stdout", "stderr"];

/// How deep folders are searched, and how many devices are found at most: no host has that many.
const MAX_DEPTH: usize = 16;
const MAX_NODES: usize = 1 << 16;

/// The device at `path`, or all devices below it if it is a folder, as nodes at and below `target`. Symlinks are
/// followed to devices, and from `path` itself to a folder.
pub fn find(path: &Path, target: &Path) -> Result<Vec<DeviceNode>> {
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            invalid(format!("the device {} does not exist on the host; is its driver loaded?", path.display()))
        }
        _ => Error::io(format!("looking at the device {}", path.display()), e),
    })?;
    if let Some(node) = node(&meta, target.to_owned()) {
        return Ok(vec![node]);
    }
    if !meta.is_dir() {
        return Err(invalid(format!("{} is neither a device nor a folder of devices", path.display())));
    }
    let mut nodes = Vec::new();
    walk(path, target, Links::Followed, MAX_DEPTH, &mut nodes)?;
    if nodes.is_empty() {
        return Err(invalid(format!("there are no devices in {} on the host", path.display())));
    }
    Ok(nodes)
}

/// What becomes of symlinks in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    /// Those to devices become devices.
    Followed,
    /// Left out: udev makes thousands on a large host, all to devices of the same folder.
    Skipped,
}

/// All devices of the host's /dev but those of which every container has its own.
pub fn everything(progress: &Progress) -> Result<Vec<DeviceNode>> {
    progress.set("the host's /dev");
    let mut nodes = Vec::new();
    walk(Path::new("/dev"), Path::new("/dev"), Links::Skipped, MAX_DEPTH, &mut nodes)?;
    Ok(nodes)
}

fn walk(dir: &Path, target: &Path, links: Links, depth: usize, nodes: &mut Vec<DeviceNode>) -> Result<()> {
    let listing = fs::read_dir(dir).map_err(|e| Error::io(format!("listing the devices in {}", dir.display()), e))?;
    let top = dir == Path::new("/dev");
    for entry in listing {
        let entry = entry.map_err(|e| Error::io(format!("listing the devices in {}", dir.display()), e))?;
        let (name, path) = (entry.file_name(), entry.path());
        let named = |list: &[&str]| top && list.iter().any(|known| *known == name);
        // Devices come and go while one looks.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if depth > 0 && !named(&NOT_MACHINES) {
                walk(&path, &target.join(&name), links, depth - 1, nodes)?;
            }
            continue;
        }
        if named(&OWN) || named(&NOT_MACHINES) || (kind.is_symlink() && links == Links::Skipped) {
            continue;
        }
        nodes.extend(fs::metadata(&path).ok().and_then(|meta| node(&meta, target.join(&name))));
        if nodes.len() > MAX_NODES {
            return Err(invalid(format!("there are more than {MAX_NODES} devices in {}", dir.display())));
        }
    }
    Ok(())
}

fn node(meta: &Metadata, path: PathBuf) -> Option<DeviceNode> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Some(DeviceNode { path, kind, major, minor, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() })
}

//! Device nodes and the usual links in `/dev`.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, Uid, makedev, mknodat, statat, symlinkat, unlinkat},
    io::Errno,
};
use tripod_shim_protocol::{DeviceKind, DeviceNode, Failure, LaunchPlan, MountSource};
use tripod_sys::inroot;

use super::place;
use crate::fault::Blame;

const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Makes the plan's device nodes and the links; where nodes cannot be made, the host's serve, one for each device.
/// A `/dev` of the host's that is mounted in the container stays as it is.
pub(super) fn make_all(root: BorrowedFd<'_>, plan: &LaunchPlan, host: Vec<OwnedFd>) -> Result<(), Failure> {
    let host_dev = |source: &MountSource| matches!(source, MountSource::Bind { .. });
    if plan.mounts.iter().any(|m| host_dev(&m.source) && m.target == Path::new("/dev")) {
        return Ok(());
    }
    let mut host = host.into_iter();
    for device in &plan.devices {
        let made = match host.next() {
            None => make(root, device),
            Some(node) => inroot::touch(root, &device.path).and_then(|place| place::attach(node, place, &device.path)),
        };
        made.plan(|| format!("make device {}", device.path.display()))?;
    }
    for (link, target) in LINKS {
        make_link(root, Path::new(link), target).plan(|| format!("make link {link}"))?;
    }
    Ok(())
}

fn make(root: BorrowedFd<'_>, device: &DeviceNode) -> io::Result<()> {
    let (dir, name) = inroot::parent(root, &device.path)?;
    make_node(&dir, name, device)?;
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    Ok(rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Makes a node in a directory; root's for now.
pub(super) fn make_node(dir: &OwnedFd, name: &Path, device: &DeviceNode) -> io::Result<()> {
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number = makedev(device.major, device.minor);
    let make = || mknodat(dir, name, kind, Mode::from_raw_mode(device.mode & 0o7777), number);
    match make() {
        Err(Errno::EXIST) => {
            let found = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) == kind && found.st_rdev == number {
                Ok(())
            } else {
                unlinkat(dir, name, AtFlags::empty())?;
                Ok(make()?)
            }
        }
        other => Ok(other?),
    }
}

fn make_link(root: BorrowedFd<'_>, link: &Path, target: &str) -> io::Result<()> {
    let (dir, name) = inroot::parent(root, link)?;
    match symlinkat(target, dir.as_fd(), name) {
        // An image may bring its own, and a plan a device of that name.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

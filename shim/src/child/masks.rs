//! Paths of the container that are hidden or protected from writing. What does not exist needs neither.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use tripod_shim_protocol::Failure;
use tripod_sys::{
    inroot,
    mount::{self, Attributes, Propagation, Value},
};

use crate::fault::Blame;

const READ_ONLY: Attributes = Attributes { read_only: true, nosuid: false, nodev: false, noexec: false };

/// Puts an empty, read-only directory over each directory and the host's `/dev/null` over each file.
pub(super) fn hide(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<(), Failure> {
    // The first one is mounted, the others are copies of it: once attached, it can be copied on any kernel.
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        hide_one(root, path, &mut empty).plan(|| format!("mask {}", path.display()))?;
    }
    Ok(())
}

fn hide_one(root: BorrowedFd<'_>, path: &Path, empty: &mut Option<OwnedFd>) -> io::Result<()> {
    let Some(place) = super::existing(root, path)? else { return Ok(()) };
    if !inroot::is_dir(&place)? {
        let null = mount::clone_path(None, Path::new("/dev/null"), false)?;
        mount::set(&null, Attributes::default(), Some(Propagation::Private), false)?;
        return mount::attach(null, place);
    }
    match empty {
        Some(empty) => mount::attach(mount::clone_fd(empty, false)?, place),
        None => {
            let options = [("size", Value::String("4k")), ("mode", Value::String("755"))];
            let new = mount::new_filesystem("tmpfs", &options, READ_ONLY)?;
            mount::attach(&new, place)?;
            *empty = Some(new);
            Ok(())
        }
    }
}

/// Makes each path, and all that is mounted below, read-only.
pub(super) fn protect(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<(), Failure> {
    for path in paths {
        protect_one(root, path).plan(|| format!("make {} read-only", path.display()))?;
    }
    Ok(())
}

fn protect_one(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let Some(place) = super::existing(root, path)? else { return Ok(()) };
    let copy = mount::clone_fd(place.as_fd(), true)?;
    mount::set(&copy, READ_ONLY, Some(Propagation::Private), true)?;
    mount::attach(copy, place)
}

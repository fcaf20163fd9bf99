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

/// Something to put over paths.
struct Cover {
    mount: OwnedFd,
    attached: bool,
}

/// Puts an empty, read-only directory over each directory and `null`, a mount of the host's `/dev/null`, over each file.
pub(super) fn hide(
    root: BorrowedFd<'_>,
    paths: &[PathBuf],
    null: Option<OwnedFd>,
    label: Option<&str>,
) -> Result<(), Failure> {
    let mut null = null.map(Cover::new);
    let mut empty = None;
    for path in paths {
        hide_one(root, path, &mut null, &mut empty, label).plan(|| format!("mask {}", path.display()))?;
    }
    Ok(())
}

fn hide_one(
    root: BorrowedFd<'_>,
    path: &Path,
    null: &mut Option<Cover>,
    empty: &mut Option<Cover>,
    label: Option<&str>,
) -> io::Result<()> {
    let Some(place) = super::existing(root, path)? else { return Ok(()) };
    let cover = if inroot::is_dir(&place)? { empty } else { null };
    let cover = match cover {
        Some(cover) => cover,
        None => cover.insert(Cover::new(empty_directory(label)?)),
    };
    cover.put_over(place)
}

fn empty_directory(label: Option<&str>) -> io::Result<OwnedFd> {
    let mut options = vec![("size", Value::String("4k")), ("mode", Value::String("755"))];
    options.extend(super::mounts::context(label));
    mount::new_filesystem("tmpfs", &options, READ_ONLY)
}

// === impl Cover ===

impl Cover {
    fn new(mount: OwnedFd) -> Cover {
        Cover { mount, attached: false }
    }

    /// The first time the mount itself is used, then copies of it: once attached, it can be copied on any kernel.
    fn put_over(&mut self, place: OwnedFd) -> io::Result<()> {
        if self.attached {
            return mount::attach(mount::clone_fd(&self.mount, false)?, place);
        }
        self.attached = true;
        mount::attach(&self.mount, place)
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

//! Where in the unified cgroup tree a child is born.
//!
//! A cgroup that gives its controllers on to cgroups below it may hold no process of its own (EBUSY). A container that
//! manages cgroups, a systemd or another runtime, makes its own one of those and moves its processes down. Who joins it
//! later goes where its first process went, as with other runtimes.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use tripod_shim_protocol::{CgroupPlan, Failure};

use crate::fault::Blame;

/// The cgroup of a container, as a descriptor to be born in: only the unified tree can do that.
pub(crate) fn of(plan: &CgroupPlan) -> Result<Option<OwnedFd>, Failure> {
    match plan.dirs.first() {
        Some(dir) if plan.unified => open(dir).plan(|| format!("open cgroup {}", dir.display())).map(Some),
        _ => Ok(None),
    }
}

/// The same after the kernel has refused it: the cgroup of the container's first process, further down.
pub(crate) fn further_down(plan: &CgroupPlan, first: i32) -> Option<OwnedFd> {
    let dir = plan.dirs.first().filter(|_| plan.unified)?;
    // If it has gone meanwhile, the first refusal is what is told.
    open(&of_first(dir, first)?).ok()
}

/// Whether the kernel has refused a cgroup because processes live further down.
pub(crate) fn is_taken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

/// The directory of the unified tree that the container's first process is in, if that is below the container's own.
pub(crate) fn of_first(dir: &Path, first: i32) -> Option<PathBuf> {
    below(dir, &fs::read_to_string(format!("/proc/{first}/cgroup")).ok()?)
}

/// `text` has a line for each hierarchy; that of the unified tree begins with `0::`. Its path starts at the root of the
/// reader's cgroup namespace, wherever that is mounted, so what counts is what comes after the container's own name.
fn below(dir: &Path, text: &str) -> Option<PathBuf> {
    let path = Path::new(text.lines().find_map(|line| line.strip_prefix("0::"))?);
    let mut parts = path.components();
    parts.by_ref().find(|part| dir.file_name() == Some(part.as_os_str()))?;
    let rest = parts.as_path();
    (rest != Path::new("")).then(|| dir.join(rest))
}

fn open(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_the_first_process_is_found_below_the_containers_own() {
        let dir = Path::new("/sys/fs/cgroup/kubepods/pod1/c1");
        let found = |text: &str| below(dir, text);
        assert_eq!(found("0::/kubepods/pod1/c1/init\n"), Some(dir.join("init")));
        assert_eq!(found("4:pids:/x/c1/y\n0::/kubepods/pod1/c1/a/c1/b\n"), Some(dir.join("a/c1/b")));
        // A reader in a cgroup namespace of its own.
        assert_eq!(found("0::/../pod1/c1/init\n"), Some(dir.join("init")));
        for text in ["0::/kubepods/pod1/c1\n", "0::/kubepods/pod1/c2/init\n", "0::/\n", "4:pids:/c1/y\n", ""] {
            assert_eq!(found(text), None, "{text:?}");
        }
    }
}

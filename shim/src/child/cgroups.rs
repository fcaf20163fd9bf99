//! Joining the container's cgroups, and showing them inside the container.

use std::{
    fs::File,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, StatxFlags, mkdirat, statx};
use tripod_shim_protocol::{CgroupPlan, Failure, MountFlags};
use tripod_sys::mount::{self, Attributes, Value};

use crate::{birthplace, fault::Blame};

/// The way into a container's cgroups. Kept for execs: opening eight files takes a fifth of what the shim has to do for
/// one, and probes come every few seconds.
#[derive(Debug)]
pub(crate) struct Doors(Vec<File>);

impl Doors {
    /// Opens the file of each v1 hierarchy through which a process comes in. In the unified tree it is born where it
    /// belongs.
    ///
    /// Of v1's two files this is `tasks`: moving one thread needs no grace period, moving a process (`cgroup.procs`)
    /// takes 5 to 15 ms. A directory of the unified tree among those of v1 (on hosts where only that tree limits huge
    /// pages) has no `tasks`.
    pub(crate) fn open(plan: &CgroupPlan) -> Result<Doors, Failure> {
        let file = |name: &Path| File::options().write(true).open(name);
        let open = |dir: &PathBuf| {
            let opened = match file(&dir.join("tasks")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => file(&dir.join("cgroup.procs")),
                other => other,
            };
            opened.plan(|| format!("open cgroup {}", dir.display()))
        };
        let dirs = plan.dirs.iter().filter(|_| !plan.unified);
        dirs.map(open).collect::<Result<_, _>>().map(Doors)
    }

    /// Moves the calling process, which has one thread, in. `first` is the first process of the container, if there is
    /// one already.
    pub(super) fn enter(&self, plan: &CgroupPlan, first: Option<i32>) -> Result<(), Failure> {
        for (mut door, dir) in self.0.iter().zip(&plan.dirs) {
            // 0 is the writer itself.
            let joined = io::Write::write_all(&mut door, b"0").or_else(|error| {
                let taken = birthplace::is_taken(&error);
                let further = first.filter(|_| taken).and_then(|first| birthplace::of_first(dir, first));
                further.map_or(Err(error), |dir| std::fs::write(dir.join("cgroup.procs"), "0"))
            });
            joined.plan(|| format!("join cgroup {}", dir.display()))?;
        }
        Ok(())
    }
}

/// Copies of the container's directories in all v1 hierarchies.
pub(super) fn hierarchies(plan: &CgroupPlan, flags: MountFlags) -> Result<Vec<(PathBuf, OwnedFd)>, Failure> {
    let open = |dir: &PathBuf| {
        let name = hierarchy(dir)?;
        let mount = mount::clone_path(None, dir, false)?;
        mount::set(&mount, attributes(flags), Some(mount::Propagation::Private), false)?;
        io::Result::Ok((name.to_owned(), mount))
    };
    plan.dirs.iter().map(|dir| open(dir).plan(|| format!("take cgroup {} along", dir.display()))).collect()
}

/// Mounts v1 hierarchies below `target`, each under its name.
pub(super) fn attach(
    root: BorrowedFd<'_>,
    target: &Path,
    hierarchies: Vec<(PathBuf, OwnedFd)>,
    flags: MountFlags,
    label: Option<&str>,
) -> Result<(), Failure> {
    let step = || format!("mount cgroups on {}", target.display());
    let mut options = vec![("mode", Value::String("755")), ("size", Value::String("64k"))];
    options.extend(super::mounts::context(label));
    let writable = attributes(MountFlags { read_only: false, ..flags });
    let top = mount::new_filesystem("tmpfs", &options, writable).plan(step)?;
    super::mounts::attach_dir(root, &top, target)?;
    for (name, mount) in hierarchies {
        attach_hierarchy(&top, &name, &mount).plan(|| format!("{}: {}", step(), name.display()))?;
    }
    if flags.read_only {
        let read_only = Attributes { read_only: true, ..Attributes::default() };
        mount::set(&top, read_only, None, false).plan(step)?;
    }
    Ok(())
}

fn attach_hierarchy(top: &OwnedFd, name: &Path, mount: &OwnedFd) -> io::Result<()> {
    mkdirat(top, name, Mode::from_raw_mode(0o755))?;
    mount::attach(mount, rustix::fs::openat(top, name, super::PATH, Mode::empty())?)?;
    // Jointly mounted controllers are looked for under each one's name.
    let joint = name.to_str().filter(|name| name.contains(','));
    for alias in joint.into_iter().flat_map(|name| name.split(',')) {
        rustix::fs::symlinkat(name, top, alias)?;
    }
    Ok(())
}

/// The name of the directory on which the hierarchy that holds `dir` is mounted: `memory`, `cpu,cpuacct`, …
fn hierarchy(dir: &Path) -> io::Result<&Path> {
    const MOUNT_ROOT: u64 = 0x2000; // STATX_ATTR_MOUNT_ROOT, Linux 5.8
    for place in dir.ancestors() {
        let stat = statx(CWD, place, AtFlags::empty(), StatxFlags::empty())?;
        if stat.stx_attributes.bits() & MOUNT_ROOT != 0 {
            let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            return Ok(Path::new(name));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn attributes(flags: MountFlags) -> Attributes {
    Attributes { read_only: flags.read_only, nosuid: true, nodev: true, noexec: true }
}

//! Project quotas for writable layers: the filesystem keeps the account of what each uses, and holds it to its limit.
//!
//! A layer gets a project's number with its first folder, and what is made in there inherits it. Nothing is recorded:
//! a folder tells its number, and the filesystem what it uses.
//!
//! The owner of a file may give it another project, unless he is in a user namespace. So only accounts of containers in
//! one are believed: their numbers tell. Others are held to their limit as well, and counted by walking.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tripod_engine::{ContainerId, usage::WritableLayer};
use tripod_sys::quota::{self, Attributes, Quota};

use crate::{copy, overlay, usage::Counted};

/// Numbers that are ours. Kubelet gives its volumes numbers from 1048577 on, the storages of other container runtimes
/// small ones, systemd those from 2147483648 on.
const OURS: std::ops::Range<u32> = 0x6000_0000..0x8000_0000;
/// From here on they are of containers in user namespaces.
const MAPPED: u32 = 0x7000_0000;
/// How many of them one store goes through. XFS keeps room for each that it has ever seen.
const TURN: u32 = 1 << 14;

/// The accounts of all containers.
#[derive(Debug)]
pub(crate) struct Quotas {
    /// The folder of all containers, by which the filesystem is named.
    folder: File,
    /// What is made there inherits of it.
    attributes: Attributes,
    /// The first number of this store, for containers without a user namespace.
    first: u32,
    projects: Mutex<Projects>,
}

#[derive(Debug, Default)]
struct Projects {
    of: HashMap<ContainerId, u32>,
    /// How many numbers have been tried.
    tried: u32,
}

impl Quotas {
    /// Those of the filesystem of the folder that has a folder for each container. Fails where it has none in force.
    pub(crate) fn open(containers: &Path) -> io::Result<Self> {
        let folder = File::open(containers)?;
        quota::check(&folder)?;
        let attributes = Attributes::of(&folder)?;
        if let Some(project) = attributes.project() {
            // Then nothing of another project could be put there, or taken away from there.
            return Err(io::Error::other(format!("the folder is in project {project} as a whole")));
        }
        let first = first(folder.metadata()?.ino());
        // Whoever may not do it is told so here.
        quota::get(&folder, first)?;
        let mut of = HashMap::new();
        for entry in std::fs::read_dir(containers)? {
            let entry = entry?;
            let Some(container) = entry.file_name().to_str().and_then(ContainerId::parse) else { continue };
            let known = [overlay::UPPER, copy::ROOTFS].map(|name| project(&entry.path().join(name)));
            if let Some(project) = known.into_iter().find_map(|project| project.ok().flatten()) {
                of.insert(container, project);
            }
        }
        Ok(Self { folder, attributes, first, projects: Mutex::new(Projects { of, tried: 0 }) })
    }

    /// Gives the new, empty folders of a container, which is in a user namespace or not, a project. Where that fails they have none, and are counted otherwise.
    pub(crate) fn assign(&self, container: &ContainerId, folders: &[&Path], mapped: bool) -> io::Result<()> {
        let folders = folders.iter().map(File::open).collect::<io::Result<Vec<_>>>()?;
        match self.find(&folders, mapped) {
            Ok(project) => {
                // Another provisioner may have made a layer for it before, which is in the trash.
                if let Some(former) = self.projects().of.insert(container.clone(), project) {
                    self.clear(former);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(container = container.short(), %error, "the filesystem gives a writable layer no project");
                self.release(container);
                folders.iter().try_for_each(|folder| self.attributes.with(None).set(folder))
            }
        }
    }

    /// Finds a number that nothing else has. Another daemon, and what waits in the trash, may have any; the filesystem
    /// knows: with the number given to the folders, they must be all that has it.
    fn find(&self, folders: &[File], mapped: bool) -> io::Result<u32> {
        for _ in 0..TURN {
            let Some(project) = self.next(mapped) else { continue };
            let attributes = self.attributes.with(Some(project));
            folders.iter().try_for_each(|folder| attributes.set(folder))?;
            let Quota { inodes, limit, .. } = quota::get(&self.folder, project)?;
            if inodes > folders.len() as u64 {
                continue;
            }
            if limit.is_some() {
                // Of a daemon that was killed in the midst of a removal.
                quota::limit(&self.folder, project, None)?;
            }
            return Ok(project);
        }
        Err(io::Error::other("all project numbers of this store are in use"))
    }

    /// The next number in turn, unless a container has it.
    fn next(&self, mapped: bool) -> Option<u32> {
        let mut projects = self.projects();
        let first = if mapped { self.first + (MAPPED - OURS.start) } else { self.first };
        let project = first + projects.tried % TURN;
        projects.tried = projects.tried.wrapping_add(1);
        (!projects.of.values().any(|used| *used == project)).then_some(project)
    }

    /// What a container uses in its folder, if that is known without counting, and to be believed.
    pub(crate) fn counted(&self, container: &ContainerId, folder: &Path) -> Option<Counted> {
        self.of(container).filter(|project| *project >= MAPPED)?;
        let Quota { bytes, inodes, .. } = self.get(container)?;
        let (copied, volumes) = (copy::size(folder, copy::ROOTFS), copy::size_of_volumes(folder));
        let (all, less) = (WritableLayer { bytes, inodes }, |all: u64, part: u64| all.saturating_sub(part));
        Some(Counted {
            written: WritableLayer { bytes: less(all.bytes, copied.bytes), inodes: less(all.inodes, copied.inodes) },
            held: WritableLayer { bytes: all.bytes + volumes.bytes, inodes: all.inodes + volumes.inodes },
        })
    }

    /// Holds what a container writes to this many bytes; gives whether that could be done.
    pub(crate) fn limit(&self, container: &ContainerId, folder: &Path, bytes: u64) -> bool {
        let Some(project) = self.of(container) else { return false };
        let whole = copy::size(folder, copy::ROOTFS).bytes.saturating_add(bytes);
        let limited = quota::limit(&self.folder, project, Some(whole));
        limited
            .inspect_err(|error| {
                tracing::warn!(container = container.short(), %error, "the filesystem takes no limit: it is looked after");
            })
            .is_ok()
    }

    /// Bytes that a container may still write, if the filesystem holds it to a limit.
    pub(crate) fn left(&self, container: &ContainerId) -> Option<u64> {
        let Quota { bytes, limit, .. } = self.get(container)?;
        Some(limit?.saturating_sub(bytes))
    }

    /// What is in a container's project.
    pub(crate) fn size(&self, container: &ContainerId) -> Option<WritableLayer> {
        self.get(container).map(|Quota { bytes, inodes, .. }| WritableLayer { bytes, inodes })
    }

    /// Lets go of a container's project.
    pub(crate) fn release(&self, container: &ContainerId) {
        let project = self.projects().of.remove(container);
        if let Some(project) = project {
            self.clear(project);
        }
    }

    /// Without a limit the filesystem needs to remember nothing of a project that has no files.
    fn clear(&self, project: u32) {
        let limited = quota::get(&self.folder, project).is_ok_and(|quota| quota.limit.is_some());
        if limited && let Err(error) = quota::limit(&self.folder, project, None) {
            tracing::debug!(project, %error, "the limit of a project stays until its number is given again");
        }
    }

    fn get(&self, container: &ContainerId) -> Option<Quota> {
        // Without an answer, as when somebody has switched quotas off, it is counted otherwise.
        quota::get(&self.folder, self.of(container)?).ok()
    }

    fn of(&self, container: &ContainerId) -> Option<u32> {
        self.projects().of.get(container).copied()
    }

    fn projects(&self) -> MutexGuard<'_, Projects> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The project that a folder hands down, if it is one of ours.
fn project(folder: &Path) -> io::Result<Option<u32>> {
    Ok(Attributes::of(File::open(folder)?)?.project().filter(|project| OURS.contains(project)))
}

/// Gives a new folder the project of the one beside it, if that has one. What is made in the one has to be at home in
/// the other, whether quotas are in force or not: the kernel moves no file from one project into another.
pub(crate) fn like(model: &Path, folder: &Path) -> io::Result<()> {
    // Filesystems without projects know no such attributes.
    let Ok(attributes) = Attributes::of(File::open(model)?) else { return Ok(()) };
    match attributes.project() {
        Some(_) => attributes.set(File::open(folder)?),
        None => Ok(()),
    }
}

/// Where a store begins, by the inode of one of its folders: several on one filesystem begin at different places.
fn first(inode: u64) -> u32 {
    let turns = u64::from((MAPPED - OURS.start) / TURN);
    OURS.start + u32::try_from(inode % turns).unwrap_or(0) * TURN
}

#[cfg(test)]
mod tests;

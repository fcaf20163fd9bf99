//! What writable layers use: told by the filesystem where it keeps [account](crate::quota) of them, else counted by walking
//! them, seldom, beside everything else.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Errno,
};
use tripod_engine::{ContainerId, Error, Kind, Result, usage::WritableLayer};

use crate::{copy, fetch::blocking, flight::Flights, overlay, quota::Quotas, service::Inner};

/// A count that took long is kept for this many times as long, whoever wants a newer one.
const PATIENCE: u32 = 20;

/// Folders that are open at the same time. Nobody but who wants it so has as many above each other with others beside
/// each of them.
const MOST_OPEN: usize = 128;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Counts of all containers.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    counted: Mutex<HashMap<ContainerId, Count>>,
    counting: Arc<Flights<ContainerId, Counted, ()>>,
}

/// What a container's folder uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// What the container has changed.
    pub written: WritableLayer,
    /// All, with what was copied from images.
    pub held: WritableLayer,
}

/// A count.
#[derive(Debug, Clone, Copy)]
struct Count {
    usage: Counted,
    begin: Instant,
    took: Duration,
}

impl Inner {
    /// What a container uses, counted no longer ago than `age` if that can be had.
    pub(crate) async fn used(self: &Arc<Self>, container: &ContainerId, age: Duration) -> Result<Counted> {
        let folder = self.fetcher.layout.containers().join(container);
        if self.quotas.is_ok() {
            let (inner, id, folder) = (Arc::clone(self), container.clone(), folder.clone());
            let told = blocking(move || inner.quotas()?.counted(&id, &folder));
            if let Some(counted) = told.await? {
                return Ok(counted);
            }
        }
        self.usage.get(container, &folder, age).await
    }

    /// The filesystem's accounts, where it keeps any.
    pub(crate) fn quotas(&self) -> Option<&Quotas> {
        self.quotas.as_ref().ok()
    }
}

impl Cache {
    /// What a container uses in its folder, counted no longer ago than `age` if that can be had.
    pub(crate) async fn get(
        self: &Arc<Self>,
        container: &ContainerId,
        folder: &Path,
        age: Duration,
    ) -> Result<Counted> {
        if let Some(Count { usage, begin, took }) = self.counted().get(container)
            && begin.elapsed() < age.max(*took * PATIENCE)
        {
            return Ok(*usage);
        }
        let (cache, id, folder) = (Arc::clone(self), container.clone(), folder.to_owned());
        let work = || async move {
            // Only what it took itself: on a busy node threads wait for their turn.
            let timed = move || {
                let begin = Instant::now();
                (of_container(&folder), begin, begin.elapsed())
            };
            let (counted, begin, took) = blocking(timed).await?;
            let usage = counted.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::new(Kind::NotFound, format!("container {id} has no writable layer")),
                _ => Error::io(format!("cannot count the writable layer of container {id}"), error),
            })?;
            cache.counted().insert(id, Count { usage, begin, took });
            Ok(usage)
        };
        self.counting.join(container.clone(), (), work).outcome.await
    }

    pub(crate) fn forget(&self, container: &ContainerId) {
        self.counted().remove(container);
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Count>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts what a container has, whichever provisioner made it.
fn of_container(folder: &Path) -> io::Result<Counted> {
    match count(&folder.join(copy::ROOTFS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let written = count(&folder.join(overlay::UPPER))?;
            Ok(Counted { written, held: written })
        }
        counted => {
            let (mut held, copied) = (counted?, copy::size(folder, copy::ROOTFS));
            let written = WritableLayer {
                bytes: held.bytes.saturating_sub(copied.bytes),
                inodes: held.inodes.saturating_sub(copied.inodes),
            };
            let volumes = copy::size_of_volumes(folder);
            held.bytes += volumes.bytes;
            held.inodes += volumes.inodes;
            Ok(Counted { written, held })
        }
    }
}

/// Counts blocks and inodes below a folder. What vanishes meanwhile is not counted.
///
/// A container chooses how deep its folders are, and exchanges them for links while this goes on: each is opened from the
/// one above it, and no path is followed.
pub(crate) fn count(folder: &Path) -> io::Result<WritableLayer> {
    let top = openat(CWD, folder, FOLDER, Mode::empty())?;
    let mut usage = WritableLayer { bytes: bytes(&fstat(&top)?), inodes: 1 };
    let mut links = HashSet::new();
    // Folders of which not all that is in them has been entered yet.
    let mut open = vec![(read(&top, &mut usage, &mut links)?, top)];
    while let Some((names, folder)) = open.last_mut() {
        let Some(name) = names.pop() else {
            open.pop();
            continue;
        };
        let below = openat(&*folder, &name, FOLDER, Mode::empty());
        // Closed before the next one is opened, so that a mere chain of folders needs two descriptors.
        if names.is_empty() {
            open.pop();
        }
        let below = match below {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            below => below?,
        };
        if open.len() >= MOST_OPEN {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "its folders are too deep to be counted"));
        }
        open.push((read(&below, &mut usage, &mut links)?, below));
    }
    Ok(usage)
}

/// Counts what is right in a folder; gives the names of the folders among it.
fn read(folder: &OwnedFd, usage: &mut WritableLayer, links: &mut HashSet<u64>) -> io::Result<Vec<CString>> {
    let mut folders = Vec::new();
    for entry in Dir::read_from(folder)? {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !is_folder && !links.insert(stat.st_ino) {
            continue;
        }
        usage.bytes += bytes(&stat);
        usage.inodes += 1;
        if is_folder {
            folders.push(name.to_owned());
        }
    }
    Ok(folders)
}

fn bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests;

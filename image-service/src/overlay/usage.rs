//! What writable layers use: counted by walking them, seldom, beside everything else.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tripod_engine::{ContainerId, Error, Kind, Result, usage::WritableLayer};

use crate::{fetch::blocking, flight::Flights};

/// Age up to which a count is given again.
const FRESH: Duration = Duration::from_secs(10);
/// A count that took long is kept for this many times as long.
const PATIENCE: u32 = 20;

/// Counts of all containers.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    counted: Mutex<HashMap<ContainerId, (WritableLayer, Instant)>>,
    counting: Arc<Flights<ContainerId, WritableLayer, ()>>,
}

impl Cache {
    /// What the folder of a container uses, at most some seconds old.
    pub(crate) async fn get(self: &Arc<Self>, container: &ContainerId, folder: &Path) -> Result<WritableLayer> {
        if let Some((usage, until)) = self.counted().get(container)
            && Instant::now() < *until
        {
            return Ok(*usage);
        }
        let (cache, id, folder) = (Arc::clone(self), container.clone(), folder.to_owned());
        let work = || async move {
            let begin = Instant::now();
            let counted = blocking(move || count(folder)).await?;
            let usage = counted.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::new(Kind::NotFound, format!("container {id} has no writable layer")),
                _ => Error::io(format!("cannot count the writable layer of container {id}"), error),
            })?;
            let until = Instant::now() + FRESH.max(begin.elapsed() * PATIENCE);
            cache.counted().insert(id, (usage, until));
            Ok(usage)
        };
        self.counting.join(container.clone(), (), work).outcome.await
    }

    pub(crate) fn forget(&self, container: &ContainerId) {
        self.counted().remove(container);
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, (WritableLayer, Instant)>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts blocks and inodes below a folder. What vanishes meanwhile is not counted.
pub(crate) fn count(folder: PathBuf) -> io::Result<WritableLayer> {
    let mut usage = WritableLayer { bytes: std::fs::symlink_metadata(&folder)?.blocks() * 512, inodes: 1 };
    let mut links = HashSet::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() > 1 && !metadata.is_dir() && !links.insert(metadata.ino()) {
                continue;
            }
            usage.bytes += metadata.blocks() * 512;
            usage.inodes += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(usage)
}

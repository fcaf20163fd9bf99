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

/// A count that took long is kept for this many times as long, whoever wants a newer one.
const PATIENCE: u32 = 20;

/// Counts of all containers.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    counted: Mutex<HashMap<ContainerId, Count>>,
    counting: Arc<Flights<ContainerId, WritableLayer, ()>>,
}

/// A count.
#[derive(Debug, Clone, Copy)]
struct Count {
    usage: WritableLayer,
    begin: Instant,
    took: Duration,
}

impl Cache {
    /// What the folder of a container uses, counted no longer ago than `age` if that can be had.
    pub(crate) async fn get(
        self: &Arc<Self>,
        container: &ContainerId,
        folder: &Path,
        age: Duration,
    ) -> Result<WritableLayer> {
        if let Some(Count { usage, begin, took }) = self.counted().get(container)
            && begin.elapsed() < age.max(*took * PATIENCE)
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
            cache.counted().insert(id, Count { usage, begin, took: begin.elapsed() });
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

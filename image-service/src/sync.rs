//! Getting layers onto the disk after their pull was answered.

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::fs::{CWD, Mode, OFlags, openat, syncfs};

use crate::{
    digest::Digest,
    fetch::{Fetcher, blocking},
    layers::{self, Layer},
    service::{Inner, background},
};

/// Pulls come in bunches, when a pod starts; one sync does for all of them.
const DELAY: Duration = Duration::from_secs(3);

pub(crate) fn start(inner: &Arc<Inner>) {
    background(
        inner,
        DELAY,
        |inner| &inner.sync,
        |inner| async move {
            // The pulls are over for now, and malloc keeps what they have used.
            let synced = blocking(move || {
                let synced = inner.disk.sync(&inner.fetcher);
                // For whoever asks for figures, who does not wait for it.
                if let Err(error) = inner.fetcher.objects.saved() {
                    tracing::warn!(%error, "what shared files save could not be counted");
                }
                tripod_sys::memory::trim();
                synced
            });
            match synced.await {
                Ok(Ok(0)) => {}
                Ok(Ok(count)) => tracing::debug!(layers = count, "layers are on disk"),
                Ok(Err(error)) => tracing::warn!(%error, "layers could not be synced; a reboot will discard them"),
                Err(error) => tracing::warn!(%error, "layers could not be synced"),
            }
        },
    );
}

/// The disk that is synced.
///
/// The kernel tells a failure to write once, to those that have the filesystem open, and then takes for written what it
/// could not write. So it is open from before the first layer on; and layers that were there when a sync failed, or were
/// on their way, are never recorded as synced, whatever later syncs say. This boot can use them, the next fetches them.
#[derive(Debug)]
pub(crate) struct Disk {
    root: OwnedFd,
    /// Layers that were on their way when a sync failed.
    doubted: Mutex<HashSet<Digest>>,
}

impl Disk {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, doubted: Mutex::default() })
    }

    /// Syncs the filesystem and records it for all layers that were complete before.
    fn sync(&self, fetcher: &Fetcher) -> io::Result<usize> {
        let waiting = waiting(fetcher);
        if waiting.is_empty() {
            return Ok(0);
        }
        let outcome = syncfs(&self.root).map_err(io::Error::from);
        self.conclude(fetcher, &waiting, outcome)
    }

    fn conclude(&self, fetcher: &Fetcher, waiting: &[Arc<Layer>], outcome: io::Result<()>) -> io::Result<usize> {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = outcome {
            doubted.extend(fetcher.flights.under_way());
            // With those that came during the sync.
            for layer in self::waiting(fetcher) {
                // A disk that does not take this either is mounted anew before it does, which raises doubts as well.
                let _ = record(fetcher, &layer, layer.doubted());
            }
            return Err(error);
        }
        for layer in waiting {
            let concluded = if doubted.remove(&layer.diff_id) { layer.doubted() } else { layer.synced() };
            record(fetcher, layer, concluded)?;
        }
        Ok(waiting.len())
    }
}

fn waiting(fetcher: &Fetcher) -> Vec<Arc<Layer>> {
    fetcher.catalog.state().layers.values().filter(|layer| layer.waits_for_sync()).cloned().collect()
}

/// Records what became of a layer's sync.
fn record(fetcher: &Fetcher, layer: &Arc<Layer>, concluded: Layer) -> io::Result<()> {
    let same = |known: &Arc<Layer>| Arc::ptr_eq(known, layer);
    // Replaced since: other files, which have to be synced for themselves.
    if !fetcher.catalog.state().layers.get(&layer.diff_id).is_some_and(same) {
        return Ok(());
    }
    let recorded = layers::record_sync(&fetcher.layout, &concluded);
    // Doubts count even if they cannot be written.
    if recorded.is_ok() || concluded.unsynced_since_boot.is_some() {
        let mut state = fetcher.catalog.state();
        if let Some(known) = state.layers.get_mut(&layer.diff_id)
            && Arc::ptr_eq(known, layer)
        {
            *known = Arc::new(concluded);
        }
    }
    match recorded {
        // Collected meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        recorded => recorded,
    }
}

#[cfg(test)]
mod tests;

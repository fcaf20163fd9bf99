//! Getting layers onto the disk after their pull was answered.

use std::{sync::Arc, time::Duration};

use rustix::fs::{CWD, Mode, OFlags, openat, syncfs};

use crate::{
    fetch::blocking,
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
                let synced = run(&inner);
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
                Ok(Err(error)) => tracing::warn!(%error, "layers could not be synced; a reboot would discard them"),
                Err(error) => tracing::warn!(%error, "layers could not be synced"),
            }
        },
    );
}

/// Syncs the filesystem and records it for all layers that were complete before.
fn run(inner: &Inner) -> std::io::Result<usize> {
    let fetcher = &inner.fetcher;
    let waiting: Vec<Arc<Layer>> = {
        let state = fetcher.catalog.state();
        state.layers.values().filter(|layer| layer.unsynced_since_boot.is_some()).cloned().collect()
    };
    if waiting.is_empty() {
        return Ok(0);
    }
    let root = openat(CWD, fetcher.layout.root(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    syncfs(root)?;
    for layer in &waiting {
        let same = |known: &Arc<Layer>| Arc::ptr_eq(known, layer);
        // Replaced since: other files, which have to be synced for themselves.
        if !fetcher.catalog.state().layers.get(&layer.diff_id).is_some_and(same) {
            continue;
        }
        let synced = match layers::record_sync(&fetcher.layout, layer) {
            // Collected meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            synced => synced?,
        };
        let mut state = fetcher.catalog.state();
        if let Some(known) = state.layers.get_mut(&layer.diff_id)
            && Arc::ptr_eq(known, layer)
        {
            *known = Arc::new(synced);
        }
    }
    Ok(waiting.len())
}

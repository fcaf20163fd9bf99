//! Garbage collection: mark and sweep, in the background, without a lock that a pull needs.
//!
//! What images, containers and running pulls need is marked from memory. A layer that nobody needs disappears from the
//! catalog in the same moment, and is renamed into the trash under the key under which it would be fetched again, so
//! that the two cannot meet; what was fetched again before its turn came stays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tripod_engine::{Error, Kind};

use crate::{
    check, content,
    digest::Digest,
    fetch::blocking,
    figures::add,
    progress::LayerMeter,
    service::{Inner, background},
};

pub(crate) fn start(inner: &Arc<Inner>) {
    background(inner, Duration::from_millis(200), |inner| &inner.sweep, |inner| async move { sweep(&inner).await });
}

/// Removes what nobody needs.
pub(crate) async fn sweep(inner: &Arc<Inner>) {
    let unneeded: Vec<Digest> = {
        let mut state = inner.fetcher.catalog.state();
        let now = Instant::now();
        state.kept.retain(|_, until| *until > now);
        if let Some(next) = state.kept.values().min() {
            again(inner, *next);
        }
        let needed = state.needed();
        let unneeded: Vec<Digest> = state.layers.keys().filter(|layer| !needed.contains(*layer)).cloned().collect();
        let removed = unneeded.iter().filter_map(|layer| state.layers.remove(layer));
        let bytes = removed.map(|layer| layer.unpacked.disk_bytes).sum();
        let counters = &inner.fetcher.counters;
        add(&counters.collections, 1);
        add(&counters.collected_layers, unneeded.len() as u64);
        add(&counters.collected_bytes, bytes);
        unneeded
    };
    for layer in unneeded {
        let (fetcher, diff_id) = (Arc::clone(&inner.fetcher), layer.clone());
        let work = || async move {
            // A pull that came while others were being removed has it again.
            if fetcher.catalog.state().layers.contains_key(&diff_id) {
                return Err(Error::new(Kind::Unavailable, "the layer was just fetched again"));
            }
            let taken = blocking(move || fetcher.trash.take(&fetcher.layout.layer(&diff_id))).await?;
            taken.map_err(|error| Error::io("cannot move a layer to the trash", error))?;
            // Whoever joined to get the layer has to fetch it now.
            Err(Error::new(Kind::Unavailable, "the layer was just removed"))
        };
        let ticket = inner.fetcher.flights.join(layer.clone(), LayerMeter::empty(layer.clone()), work);
        match ticket.outcome.await {
            Err(error) if ticket.first && error.kind() != Kind::Unavailable => {
                tracing::warn!(%layer, %error, "a layer that nobody needs stays until the next start");
            }
            _ => tracing::debug!(%layer, "layer removed"),
        }
    }
    let inner = Arc::clone(inner);
    let done = blocking(move || {
        remove_blobs(&inner)?;
        check::clear_retired(&inner)?;
        inner.fetcher.trash.empty()?;
        inner.fetcher.objects.sweep()
    });
    match done.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the trash could not be emptied"),
        Err(error) => tracing::warn!(%error, "the trash could not be emptied"),
    }
}

/// Sweeps again when layers of a failed pull have been kept long enough.
fn again(inner: &Arc<Inner>, when: Instant) {
    let inner = Arc::downgrade(inner);
    tokio::spawn(async move {
        tokio::time::sleep_until(when.into()).await;
        if let Some(inner) = inner.upgrade() {
            inner.sweep.notify_one();
        }
    });
}

/// Removes manifests, indexes and configurations that nobody needs.
fn remove_blobs(inner: &Inner) -> std::io::Result<()> {
    let (layout, catalog) = (&inner.fetcher.layout, &inner.fetcher.catalog);
    let blobs = content::list(layout)?;
    let needed = catalog.state().needed();
    for (digest, _) in blobs.into_iter().filter(|(digest, _)| !needed.contains(digest)) {
        content::remove(layout, &digest, || catalog.state().needed().contains(&digest))?;
    }
    Ok(())
}

//! Figures about pulls and the store, for whoever watches a node. Work adds to counters; the rest is looked at when
//! somebody asks.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tripod_engine::{Error, Kind};

use crate::{
    progress::{LayerProgress, LayerState},
    registry::Problem,
    service::ImageService,
};

/// Upper bounds of the classes of pulls by duration, in seconds.
pub const BOUNDS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

/// The outcome of a pull that worked.
pub const PULLED: &str = "ok";

/// Counts since the daemon's start, and how things are now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Pulls that ended, by outcome: [`PULLED`], or the reason of the failure.
    pub pulls: BTreeMap<&'static str, u64>,
    /// How long those took that worked.
    pub durations: Durations,
    /// Pulls that run.
    pub pulls_running: u64,
    /// Layers on their way, by state, each counted once.
    pub layers_under_way: BTreeMap<&'static str, u64>,
    /// Bytes of the blobs of those layers.
    pub bytes_under_way: u64,
    /// Bytes of them that are here.
    pub bytes_here: u64,
    /// Bytes that came from registries for layers, those of failed downloads too.
    pub downloaded_bytes: u64,
    /// Layers of pulled images that came from a registry.
    pub layers_fetched: u64,
    /// Layers of pulled images that were in the store already, or came for another pull.
    pub layers_shared: u64,
    /// Images in the store.
    pub images: u64,
    /// Layers in the store.
    pub layers: u64,
    /// Bytes on disk of those layers.
    pub layer_bytes: u64,
    /// Bytes that are not there because layers have files in common, as of the last count.
    pub saved_bytes: u64,
    /// Files that those are.
    pub saved_files: u64,
    /// Runs of the garbage collection.
    pub collections: u64,
    /// Layers that it removed.
    pub collected_layers: u64,
    /// Bytes on disk of those layers.
    pub collected_bytes: u64,
}

/// Durations by class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Durations {
    /// How many are at most as long as each of [`BOUNDS`], and longer than the one before; the last are longer than all.
    pub classes: [u64; BOUNDS.len() + 1],
    /// Seconds of all together.
    pub sum: f64,
}

/// What is counted while work goes on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pulls: Mutex<Pulls>,
    pub downloaded_bytes: AtomicU64,
    pub layers_fetched: AtomicU64,
    pub layers_shared: AtomicU64,
    pub collections: AtomicU64,
    pub collected_layers: AtomicU64,
    pub collected_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Pulls {
    ended: BTreeMap<&'static str, u64>,
    durations: Durations,
}

impl Counters {
    /// A pull has ended.
    pub(crate) fn pulled(&self, failure: Option<&Error>, took: Duration) {
        let mut pulls = self.pulls();
        *pulls.ended.entry(failure.map_or(PULLED, reason)).or_default() += 1;
        if failure.is_none() {
            let seconds = took.as_secs_f64();
            let class = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
            pulls.durations.classes[class] += 1;
            pulls.durations.sum += seconds;
        }
    }

    fn pulls(&self) -> MutexGuard<'_, Pulls> {
        self.pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// Why a pull failed, in a word.
fn reason(error: &Error) -> &'static str {
    let problem = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Problem>());
    match (problem, error.kind()) {
        (Some(Problem::Stalled { .. }), _) => "no_progress",
        (Some(Problem::Digest { .. } | Problem::Length { .. }), _) => "corrupt",
        (_, Kind::InvalidArgument) => "invalid_argument",
        (_, Kind::NotFound) => "not_found",
        (_, Kind::FailedPrecondition) => "failed_precondition",
        (_, Kind::ResourceExhausted) => "resource_exhausted",
        (_, Kind::DeadlineExceeded) => "deadline_exceeded",
        (_, Kind::Unavailable) => "unavailable",
        (_, Kind::PermissionDenied) => "permission_denied",
        (_, Kind::AlreadyExists | Kind::Unimplemented | Kind::Internal) => "internal",
    }
}

impl ImageService {
    /// Counts and states of this moment. Waits for nothing.
    pub fn figures(&self) -> Figures {
        let inner = &self.inner;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut figures = {
            let counters = &inner.fetcher.counters;
            let pulls = counters.pulls();
            Figures {
                pulls: pulls.ended.clone(),
                durations: pulls.durations.clone(),
                downloaded_bytes: read(&counters.downloaded_bytes),
                layers_fetched: read(&counters.layers_fetched),
                layers_shared: read(&counters.layers_shared),
                collections: read(&counters.collections),
                collected_layers: read(&counters.collected_layers),
                collected_bytes: read(&counters.collected_bytes),
                ..Figures::default()
            }
        };
        figures.pulls_running = inner.pulls.running().len() as u64;
        let layers = inner.fetcher.flights.running();
        figures.under_way(layers.iter().map(|meter| meter.snapshot()));
        let saved = inner.fetcher.objects.saved_lately();
        (figures.saved_bytes, figures.saved_files) = (saved.bytes, saved.inodes);
        let state = inner.fetcher.catalog.state();
        figures.images = state.images.len() as u64;
        figures.layers = state.layers.len() as u64;
        figures.layer_bytes = state.layers.values().map(|layer| layer.unpacked.disk_bytes).sum();
        figures
    }
}

impl Figures {
    fn under_way(&mut self, layers: impl Iterator<Item = LayerProgress>) {
        self.layers_under_way = BTreeMap::from([("waiting", 0), ("downloading", 0), ("unpacking", 0)]);
        // The removal of a layer stands in for its fetch, with no bytes.
        for layer in layers.filter(|layer| layer.size > 0) {
            let state = match layer.state {
                LayerState::Waiting => "waiting",
                LayerState::Downloading => "downloading",
                LayerState::Unpacking => "unpacking",
                LayerState::Done => continue,
            };
            *self.layers_under_way.entry(state).or_default() += 1;
            self.bytes_under_way += layer.size;
            self.bytes_here += layer.downloaded.min(layer.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn pulls_are_counted_by_their_end_and_their_time() {
        let counters = Counters::default();
        for millis in [0, 100, 101, 3_600_000] {
            counters.pulled(None, Duration::from_millis(millis));
        }
        let stalled = Problem::Stalled { rate: 1, seconds: 2, attempts: 3 };
        let failures = [
            Error::with(Kind::Unavailable, "a layer", stalled).during("cannot pull it"),
            Error::new(Kind::Unavailable, "no answer"),
            Error::new(Kind::PermissionDenied, "no"),
            Error::new(Kind::PermissionDenied, "still no"),
        ];
        for failure in &failures {
            counters.pulled(Some(failure), Duration::from_secs(1));
        }
        let pulls = counters.pulls();
        let wanted = [("no_progress", 1), ("ok", 4), ("permission_denied", 2), ("unavailable", 1)];
        assert_eq!(pulls.ended, BTreeMap::from(wanted));
        let Durations { classes, sum } = &pulls.durations;
        assert_eq!((classes[0], classes[1], classes[BOUNDS.len()], classes.iter().sum()), (2, 1, 1, 4_u64));
        assert!((sum - 3600.201).abs() < 1e-6);
    }

    #[test]
    fn layers_under_way_are_counted_by_state() {
        let layer = |state, size, downloaded| LayerProgress {
            digest: Digest::of(b""),
            size,
            downloaded,
            present: false,
            state,
        };
        let mut figures = Figures::default();
        figures.under_way(
            [
                layer(LayerState::Waiting, 10, 0),
                layer(LayerState::Downloading, 10, 4),
                layer(LayerState::Unpacking, 10, 12),
                layer(LayerState::Done, 10, 10),
                layer(LayerState::Waiting, 0, 0),
            ]
            .into_iter(),
        );
        let wanted = [("waiting", 1), ("downloading", 1), ("unpacking", 1)];
        assert_eq!(figures.layers_under_way, BTreeMap::from(wanted));
        assert_eq!((figures.bytes_under_way, figures.bytes_here), (30, 14));
    }
}

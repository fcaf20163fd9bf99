//! How far a pull is. Work counts into atomics; whoever watches gets snapshots.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use serde::Serialize;

use crate::{
    digest::Digest,
    manifest::Descriptor,
    room::{Form, Left},
};

/// Where a layer is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerState {
    /// For other layers to finish.
    #[default]
    Waiting,
    /// Bytes come in, and are unpacked as they come.
    Downloading,
    /// All bytes are here; the rest is unpacked.
    Unpacking,
    /// In the store.
    Done,
}

/// Progress of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerProgress {
    /// Digest of the blob that is downloaded.
    pub digest: Digest,
    /// Bytes of that blob.
    pub size: u64,
    /// Bytes of it that are here.
    pub downloaded: u64,
    /// The layer was in the store before: nothing was downloaded.
    pub present: bool,
    /// Where it is on its way.
    pub state: LayerState,
}

/// Progress of a pull, the lowest layer first. Empty until the manifest is here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PullProgress {
    /// Layers.
    pub layers: Vec<LayerProgress>,
}

/// Counts of one layer's work.
#[derive(Debug)]
pub(crate) struct LayerMeter {
    digest: Digest,
    size: u64,
    form: Form,
    pub downloaded: AtomicU64,
    /// Bytes of its files that were written, where somebody counts them.
    written: Arc<AtomicU64>,
    state: AtomicU8,
}

impl LayerMeter {
    pub(crate) fn new(digest: Digest, size: u64, form: Form) -> Arc<Self> {
        let written = Arc::new(AtomicU64::new(u64::MAX));
        Arc::new(Self { digest, size, form, downloaded: AtomicU64::new(0), written, state: AtomicU8::new(0) })
    }

    /// Of a layer that a manifest has.
    pub(crate) fn of(blob: &Descriptor) -> Arc<Self> {
        Self::new(blob.digest.clone(), blob.size, Form::of(blob))
    }

    /// Of work that brings nothing.
    pub(crate) fn empty(digest: Digest) -> Arc<Self> {
        Self::new(digest, 0, Form::Files)
    }

    /// The count of what is written, from the beginning.
    pub(crate) fn written(&self) -> Arc<AtomicU64> {
        self.written.store(0, Ordering::Relaxed);
        Arc::clone(&self.written)
    }

    /// What is still to come on the disk, as far as the blob's bytes tell. Some may be here and in memory, which a
    /// compression has made fewer than they will be.
    fn left(&self) -> u64 {
        let LayerProgress { size, downloaded, state, .. } = self.snapshot();
        match (state, self.form) {
            (LayerState::Done, _) => 0,
            (_, Form::Compressed) => size.saturating_sub(downloaded.min(self.written.load(Ordering::Relaxed))),
            _ => size.saturating_sub(downloaded),
        }
    }

    pub(crate) fn set(&self, state: LayerState) {
        let number = match state {
            LayerState::Waiting => 0,
            LayerState::Downloading => 1,
            LayerState::Unpacking => 2,
            LayerState::Done => 3,
        };
        self.state.store(number, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> LayerProgress {
        let downloaded = self.downloaded.load(Ordering::Relaxed);
        let state = match self.state.load(Ordering::Relaxed) {
            0 => LayerState::Waiting,
            1 => LayerState::Downloading,
            2 => LayerState::Unpacking,
            _ => LayerState::Done,
        };
        let present = state == LayerState::Done && downloaded == 0;
        LayerProgress { digest: self.digest.clone(), size: self.size, downloaded, present, state }
    }
}

/// Counts of a pull.
#[derive(Debug, Default)]
pub(crate) struct PullMeter(Mutex<Vec<Arc<LayerMeter>>>);

impl PullMeter {
    pub(crate) fn set(&self, layers: Vec<Arc<LayerMeter>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = layers;
    }

    /// Watches another one's work for a layer.
    pub(crate) fn replace(&self, index: usize, meter: Arc<LayerMeter>) {
        if let Some(slot) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            *slot = meter;
        }
    }

    /// What is still to come.
    pub(crate) fn left(&self) -> Vec<Left> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let left =
            layers.iter().map(|layer| Left { blob: layer.digest.clone(), bytes: layer.left(), form: layer.form });
        left.filter(|left| left.bytes > 0).collect()
    }

    pub(crate) fn snapshot(&self) -> PullProgress {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        PullProgress { layers: layers.iter().map(|layer| layer.snapshot()).collect() }
    }
}

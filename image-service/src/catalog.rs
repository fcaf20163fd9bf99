//! What is in the store: names over images over layers, and who needs them.
//!
//! Names and images live in `images.redb`, with one durable commit per pull. All reads are answered from memory; the
//! lock around that is never held while waiting for anything.

mod change;
mod database;
mod state;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tripod_engine::ImageConfig;

use self::database::Database;
pub(crate) use self::{
    change::Change,
    state::{Found, Pins, State},
};
pub use self::{change::Removed, database::CatalogError};
use crate::digest::Digest;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of its configuration.
    pub id: Digest,
    /// Manifests, indexes and the configuration, with their bytes. One configuration may have come with several
    /// manifests.
    pub blobs: BTreeMap<Digest, u64>,
    /// Diff IDs, the lowest layer first.
    pub layers: Vec<Digest>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    pub created: Option<String>,
    pub config: ImageConfig,
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// The type of an artifact, which is no image; its ID is the digest of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
}

/// What a container keeps alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Layers of each image, the lowest first: the image may be removed while the container needs them.
    pub images: BTreeMap<Digest, Vec<Digest>>,
}

/// The store's table of contents.
pub(crate) struct Catalog {
    database: Database,
    state: Mutex<State>,
    /// One change at a time, from reading what is to be changed to its commit.
    change: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Catalog")
    }
}

impl Catalog {
    /// Opens the database, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, CatalogError> {
        let (database, state) = Database::open(path)?;
        Ok(Self { database, state: Mutex::new(state), change: tokio::sync::Mutex::new(()) })
    }

    /// The state. Never hold it across anything that waits.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The boot under which blobs were last checked.
    pub(crate) fn checked_boot(&self) -> Result<Option<String>, CatalogError> {
        self.database.checked_boot()
    }

    pub(crate) fn record_checked_boot(&self, boot: &str) -> Result<(), CatalogError> {
        self.database.record_checked_boot(boot)
    }

    /// Decides on a change from the state as it is, commits it and then shows it. The change is made even if the
    /// caller goes away in the midst of it.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&State) -> (Change, T) + Send + 'static,
    ) -> Result<T, CatalogError> {
        let catalog = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _one = catalog.change.lock().await;
            let (change, answer) = decide(&catalog.state());
            let worker = Arc::clone(&catalog);
            let change = match tokio::task::spawn_blocking(move || worker.commit(&change).map(|()| change)).await {
                Ok(committed) => committed?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            change.apply(&mut catalog.state());
            Ok(answer)
        });
        match task.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// As [`Self::change`], for the time before there are tasks.
    pub(crate) fn change_now(&self, decide: impl FnOnce(&State) -> Change) -> Result<(), CatalogError> {
        let change = decide(&self.state());
        self.commit(&change)?;
        change.apply(&mut self.state());
        Ok(())
    }

    fn commit(&self, change: &Change) -> Result<(), CatalogError> {
        if change.is_empty() {
            return Ok(());
        }
        self.database.write(change)
    }
}

#[cfg(test)]
mod tests;

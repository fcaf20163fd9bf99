//! One piece of work for everybody who wants its result at the same time.
//!
//! Work runs in a task of its own, so that it ends whether or not the first to ask is still there.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tripod_engine::{Error, Kind, Result};

type Outcome<V> = Shared<BoxFuture<'static, Result<V>>>;

/// Running work by key, with something to watch it by.
pub(crate) struct Flights<K, V, W>(Mutex<HashMap<K, (Outcome<V>, W)>>);

impl<K, V, W> Default for Flights<K, V, W> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K, V, W> fmt::Debug for Flights<K, V, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

/// A share in running work.
pub(crate) struct Ticket<V, W> {
    pub outcome: Outcome<V>,
    pub watch: W,
    /// Whether this call began the work.
    pub first: bool,
}

impl<K, V, W> Flights<K, V, W>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    W: Clone + Send + 'static,
{
    /// Joins work that runs under this key, or begins it.
    pub(crate) fn join<F>(self: &Arc<Self>, key: K, watch: W, work: impl FnOnce() -> F) -> Ticket<V, W>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((outcome, watch)) = running.get(&key) {
            return Ticket { outcome: outcome.clone(), watch: watch.clone(), first: false };
        }
        let (work, flights, done) = (work(), Arc::clone(self), key.clone());
        let task = tokio::spawn(async move {
            // Also when the work panics, or nobody could begin it ever again.
            let _landing = Landing { flights, key: done };
            work.await
        });
        let outcome = task
            .map(|joined| joined.unwrap_or_else(|error| Err(Error::with(Kind::Internal, "a task ended early", error))))
            .boxed()
            .shared();
        running.insert(key, (outcome.clone(), watch.clone()));
        Ticket { outcome, watch, first: true }
    }
}

impl<K: Clone, V, W: Clone> Flights<K, V, W> {
    /// What work is running for.
    pub(crate) fn under_way(&self) -> Vec<K> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What all running work is watched by.
    pub(crate) fn running(&self) -> Vec<W> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|(_, watch)| watch.clone()).collect()
    }
}

struct Landing<K: Hash + Eq, V, W> {
    flights: Arc<Flights<K, V, W>>,
    key: K,
}

impl<K: Hash + Eq, V, W> Drop for Landing<K, V, W> {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests;

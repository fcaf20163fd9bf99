//! Operations belong to the engine, not to whoever asked for them.
//!
//! An operation runs to its end even if the client hangs up; a second request for the same object joins the first and
//! gets its result. It always knows its stage, and for how long it has been in it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, FutureExt, Shared};
use serde::Serialize;

use crate::{Error, Kind, Result};

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Operation {
    kind: &'static str,
    object: String,
    started: Instant,
    stages: Mutex<Vec<(&'static str, Instant)>>,
}

/// What can be seen of an operation under way.
#[derive(Debug, Clone, Serialize)]
pub struct OperationStatus {
    /// `run pod`, `create container`, …
    pub kind: &'static str,
    /// What it works on: a name, or an ID.
    pub object: String,
    /// What it is doing.
    pub stage: &'static str,
    /// For how long it has been doing that.
    pub in_stage_for: Duration,
    /// For how long it has been running.
    pub running_for: Duration,
}

impl Operation {
    fn new(kind: &'static str, object: String) -> Self {
        let now = Instant::now();
        Self { kind, object, started: now, stages: Mutex::new(vec![("begin", now)]) }
    }

    /// The operation enters its next stage.
    pub fn stage(&self, stage: &'static str) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).push((stage, Instant::now()));
    }

    fn status(&self) -> OperationStatus {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let (stage, since) = stages.last().copied().unwrap_or(("begin", self.started));
        OperationStatus {
            kind: self.kind,
            object: self.object.clone(),
            stage,
            in_stage_for: since.elapsed(),
            running_for: self.started.elapsed(),
        }
    }

    /// `name=microseconds` of every stage, for the log and the benchmarks.
    fn timings(&self) -> String {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = stages.iter().skip(1).map(|(_, at)| *at).chain(std::iter::once(Instant::now()));
        let parts = stages.iter().zip(ends).map(|((name, at), end)| format!("{name}={}", (end - *at).as_micros()));
        parts.collect::<Vec<_>>().join(" ")
    }
}

type Outcome<T> = Shared<BoxFuture<'static, Result<T>>>;

struct Flight<T> {
    request: u64,
    operation: Arc<Operation>,
    outcome: Outcome<T>,
}

/// The operations of one result type that are under way.
pub(crate) struct Operations<T> {
    flights: Arc<Mutex<HashMap<String, Flight<T>>>>,
}

impl<T> Default for Operations<T> {
    fn default() -> Self {
        Self { flights: Arc::default() }
    }
}

impl<T> std::fmt::Debug for Operations<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

impl<T: Clone + Send + Sync + 'static> Operations<T> {
    /// Joins the operation of this kind on this object, or starts it. `request` tells requests for the same object
    /// apart: one that differs from the running one is refused.
    pub async fn run<F>(
        &self,
        kind: &'static str,
        object: String,
        request: u64,
        start: impl FnOnce(Arc<Operation>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let outcome = self.join(kind, object, request, start)?;
        outcome.await
    }

    fn join<F>(
        &self,
        kind: &'static str,
        object: String,
        request: u64,
        start: impl FnOnce(Arc<Operation>) -> F,
    ) -> Result<Outcome<T>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let key = format!("{kind} {object}");
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            if flight.request != request {
                let message = format!("{kind} {object}: the same is under way with another configuration; wait for it");
                return Err(Error::new(Kind::AlreadyExists, message));
            }
            return Ok(flight.outcome.clone());
        }
        let operation = Arc::new(Operation::new(kind, object));
        let work = start(Arc::clone(&operation));
        let task = tokio::spawn(finish(Arc::clone(&self.flights), key.clone(), Arc::clone(&operation), work));
        let outcome = async move {
            task.await.unwrap_or_else(|error| Err(Error::with(Kind::Internal, format!("{kind} ended early"), error)))
        };
        let outcome = outcome.boxed().shared();
        flights.insert(key, Flight { request, operation, outcome: outcome.clone() });
        Ok(outcome)
    }

    /// All that is under way.
    pub fn list(&self) -> Vec<OperationStatus> {
        let flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.values().map(|flight| flight.operation.status()).collect()
    }
}

async fn finish<T>(
    flights: Arc<Mutex<HashMap<String, Flight<T>>>>,
    key: String,
    operation: Arc<Operation>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let result = work.await;
    flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    let (kind, object) = (operation.kind, operation.object.as_str());
    match &result {
        Ok(_) => tracing::debug!(target: "tripod::operation", kind, object, stages = operation.timings(), "done"),
        Err(error) => {
            tracing::info!(target: "tripod::operation", kind, object, stages = operation.timings(), %error, "failed");
        }
    }
    result
}

#[cfg(test)]
mod tests;

//! When the last byte of a session moved.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Watches for a session in which nothing moves.
#[derive(Debug)]
pub(crate) struct Idle {
    limit: Option<Duration>,
    start: Instant,
    /// Milliseconds after the start.
    last: AtomicU64,
}

impl Idle {
    /// Nothing may move for so long; none is for ever.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit, start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Something has moved.
    pub(crate) fn touch(&self) {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    /// Resolves with the limit once nothing has moved for so long.
    pub(crate) async fn expired(&self) -> Duration {
        let Some(limit) = self.limit else { return std::future::pending().await };
        loop {
            let end = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if end <= Instant::now() {
                return limit;
            }
            sleep_until(end).await;
        }
    }
}

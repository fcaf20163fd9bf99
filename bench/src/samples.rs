//! Times of one kind of call.

use std::time::Duration;

use serde_json::{Value, json};

/// Collected times.
#[derive(Debug, Default)]
pub struct Samples {
    times: Vec<Duration>,
}

impl Samples {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// Smallest, median and largest, in milliseconds.
    pub fn summary(&mut self) -> Value {
        self.times.sort_unstable();
        let at = |index: usize| self.times.get(index).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
        let last = self.times.len().saturating_sub(1);
        json!({ "median_ms": at(self.times.len() / 2), "min_ms": at(0), "max_ms": at(last) })
    }
}

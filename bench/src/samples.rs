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

    /// Smallest, median, 99th percentile and largest, in milliseconds.
    pub fn summary(&mut self) -> Value {
        self.times.sort_unstable();
        let at = |index: usize| self.times.get(index).map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
        let last = self.times.len().saturating_sub(1);
        let of_hundred = |percent: usize| at(last.min(self.times.len() * percent / 100));
        json!({ "median_ms": of_hundred(50), "min_ms": at(0), "p99_ms": of_hundred(99), "max_ms": at(last) })
    }
}

impl Extend<Duration> for Samples {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, times: T) {
        self.times.extend(times);
    }
}

//! What takes two looks: rates of CPU time, and sums that must not shrink when a part of them goes away.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Two looks must lie this far apart for a rate to mean anything, in nanoseconds.
const SPAN: i64 = 500_000_000;

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Rates {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    samples: HashMap<String, Sample>,
    pods: HashMap<String, PodTime>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: i64,
    total: u64,
    rate: Option<u64>,
}

#[derive(Debug, Default)]
struct PodTime {
    /// Time of containers that have ended.
    ended: u64,
    /// Time of those that run.
    running: HashMap<String, u64>,
}

impl Rates {
    /// The rate of a counter of nanoseconds, in nanoseconds a second; unknown at the first look.
    pub(super) fn rate(&self, id: &str, at: i64, total: u64) -> Option<u64> {
        let mut seen = self.lock();
        let Some(before) = seen.samples.get_mut(id) else {
            seen.samples.insert(id.to_owned(), Sample { at, total, rate: None });
            return None;
        };
        let span = at - before.at;
        if span >= SPAN {
            let used = u128::from(total.saturating_sub(before.total));
            let rate = used * 1_000_000_000 / u128::try_from(span).unwrap_or(1);
            *before = Sample { at, total, rate: u64::try_from(rate).ok() };
        }
        before.rate
    }

    /// CPU time of a pod: that of the containers that run now, and of those that were seen running before.
    pub(super) fn pod_time(&self, pod: &str, running: HashMap<String, u64>) -> u64 {
        let mut seen = self.lock();
        let before = seen.pods.entry(pod.to_owned()).or_default();
        let gone = before.running.iter().filter(|(id, _)| !running.contains_key(*id));
        before.ended += gone.map(|(_, total)| total).sum::<u64>();
        before.running = running;
        before.ended + before.running.values().sum::<u64>()
    }

    /// Forgets everything but these pods and containers.
    pub(super) fn keep(&self, known: &HashSet<&str>) {
        let mut seen = self.lock();
        seen.samples.retain(|id, _| known.contains(id.as_str()));
        seen.pods.retain(|id, _| known.contains(id.as_str()));
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::{Rates, SPAN};

    #[test]
    fn a_rate_takes_two_looks_that_lie_apart() {
        let rates = Rates::default();
        assert_eq!(rates.rate("a", 0, 0), None);
        assert_eq!(rates.rate("a", SPAN / 2, 1), None);
        assert_eq!(rates.rate("a", 2 * SPAN, 500_000_000), Some(500_000_000));
        assert_eq!(rates.rate("a", 2 * SPAN + 1, 900_000_000), Some(500_000_000));
        rates.keep(&HashSet::new());
        assert_eq!(rates.rate("a", 9 * SPAN, 0), None);
    }

    #[test]
    fn the_time_of_a_pod_never_shrinks() {
        let rates = Rates::default();
        let running =
            |list: &[(&str, u64)]| list.iter().map(|(id, time)| ((*id).to_owned(), *time)).collect::<HashMap<_, _>>();
        assert_eq!(rates.pod_time("p", running(&[("a", 10), ("b", 5)])), 15);
        assert_eq!(rates.pod_time("p", running(&[("b", 6)])), 16);
        assert_eq!(rates.pod_time("p", running(&[])), 16);
        assert_eq!(rates.pod_time("p", running(&[("c", 1)])), 17);
    }
}

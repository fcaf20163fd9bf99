//! Requests that wait for their client. Each has a random token, which works once and not for long: whoever has the
//! token is the client.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// 192 bits, so that nobody guesses one.
const BYTES: usize = 24;

/// Requests by token.
#[derive(Debug)]
pub(crate) struct Tokens<T> {
    lifetime: Duration,
    limit: usize,
    waiting: Mutex<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    requests: HashMap<String, T>,
    /// In the order of their ends. Used ones stay until then.
    ends: VecDeque<(Instant, String)>,
}

impl<T> Tokens<T> {
    pub(crate) fn new(lifetime: Duration, limit: usize) -> Self {
        Self { lifetime, limit, waiting: Mutex::new(Waiting { requests: HashMap::new(), ends: VecDeque::new() }) }
    }

    /// A token for a request; none when too many wait.
    pub(crate) fn put(&self, request: T) -> Option<String> {
        let now = Instant::now();
        let mut waiting = self.lock(now);
        if waiting.requests.len() >= self.limit {
            return None;
        }
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; BYTES]>());
        waiting.ends.push_back((now + self.lifetime, token.clone()));
        waiting.requests.insert(token.clone(), request);
        Some(token)
    }

    /// The request of a token, which is of no use from now on.
    pub(crate) fn take(&self, token: &str) -> Option<T> {
        self.lock(Instant::now()).requests.remove(token)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lock(Instant::now()).requests.len()
    }

    /// What waits, without those whose time is over.
    fn lock(&self, now: Instant) -> MutexGuard<'_, Waiting<T>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, token)) = waiting.ends.pop_front_if(|(end, _)| *end <= now) {
            waiting.requests.remove(&token);
        }
        waiting
    }
}

#[cfg(test)]
mod tests;

//! What the handles of a connection and its task have in common.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::{
    config::{Config, Role},
    error::{Ended, Error},
    output::Output,
    state::State,
};

/// State, the writing side, and how they tell each other of changes. The state's lock is never held over a wait.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) output: tokio::sync::Mutex<Output>,
    /// Something waits to be sent that no writer will send.
    pub(super) flush: Notify,
    /// An inbox has room again.
    pub(super) room: Notify,
    /// The connection should end.
    pub(super) stop: Notify,
    /// The connection has ended.
    pub(super) over: Notify,
}

/// Exists as long as anybody here uses the connection.
pub(super) struct Alive {
    shared: Arc<Shared>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(role: Role, config: &Config, output: Output) -> Self {
        Self {
            state: Mutex::new(State::new(role, config)),
            output: tokio::sync::Mutex::new(output),
            flush: Notify::new(),
            room: Notify::new(),
            stop: Notify::new(),
            over: Notify::new(),
        }
    }

    /// Works on the state, and tells whom it concerns after the lock is gone.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        let wakers = std::mem::take(&mut state.signals.wakers);
        let flush = std::mem::take(&mut state.signals.flush);
        let room = std::mem::take(&mut state.signals.room);
        // The reason to end stays for the task to take.
        let stop = state.signals.end.is_some();
        drop(state);
        for waker in wakers {
            waker.wake();
        }
        if flush {
            self.flush.notify_one();
        }
        if room {
            self.room.notify_one();
        }
        if stop {
            self.stop.notify_one();
        }
        result
    }

    pub(super) fn end(&self, why: Ended) {
        self.with(|state| state.end(why));
        self.over.notify_waiters();
    }

    /// Waits for `work`, but not beyond the end of the connection.
    pub(super) async fn until_over<R>(&self, work: impl Future<Output = R>) -> Result<R, Error> {
        let over = self.over.notified();
        if let Some(ended) = self.with(|state| state.ended().cloned()) {
            return Err(ended.into());
        }
        tokio::select! {
            biased;
            result = work => Ok(result),
            () = over => Err(self.ended().into()),
        }
    }

    pub(super) fn ended(&self) -> Ended {
        self.with(|state| state.ended().cloned().unwrap_or(Ended::Local))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

// === impl Alive ===

impl Alive {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.with(|state| state.signals.end.get_or_insert(Ended::Local).clone());
    }
}

impl fmt::Debug for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alive").finish_non_exhaustive()
    }
}

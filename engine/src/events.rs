//! The event bus: what happens to pods and containers, in order, to everybody who listens.
//!
//! A subscriber that falls too far behind is dropped rather than waited for; it notices by the end of its stream, and
//! kubelet then lists everything anew.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::{ContainerRecord, PodRecord};

/// Events that a subscriber may lag behind.
const BACKLOG: usize = 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was made.
    Created,
    /// It was started.
    Started,
    /// It ended, or was stopped.
    Stopped,
    /// It is no more.
    Deleted,
}

/// One event, with the state of the whole pod right after it.
#[derive(Debug, Clone)]
pub struct EngineEvent {
    /// What happened.
    pub kind: EventKind,
    /// The container that it happened to, or the pod's own ID.
    pub id: String,
    /// The pod.
    pub pod: Arc<PodRecord>,
    /// All containers of the pod.
    pub containers: Vec<Arc<ContainerRecord>>,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

/// The sending side.
#[derive(Debug)]
pub(crate) struct EventBus {
    sender: broadcast::Sender<EngineEvent>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }
}

impl EventBus {
    /// Tells all subscribers. Without any, an event is nobody's.
    pub fn publish(&self, event: EngineEvent) {
        let _ = self.sender.send(event);
    }

    /// Whether anybody listens; snapshots for events are only made then.
    pub fn is_heard(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// A new subscriber: everything from now on.
    pub fn subscribe(&self) -> EventStream {
        EventStream { receiver: self.sender.subscribe() }
    }
}

/// The events since the subscription.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<EngineEvent>,
}

impl EventStream {
    /// The next event; `None` when the engine has ended or this subscriber was too slow.
    pub async fn next(&mut self) -> Option<EngineEvent> {
        self.receiver.recv().await.ok()
    }
}

#[cfg(test)]
mod tests;

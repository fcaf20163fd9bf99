//! What could not be undone is tried again until it can: nothing is forgotten.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::mpsc;

use super::Engine;
use crate::{ContainerId, Error, PodId, Result};

/// Pause between two tries; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Something of which parts may be left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leftover {
    Pod(PodId),
    Container(ContainerId),
}

/// Where operations note what they could not undo.
#[derive(Debug)]
pub(super) struct Leftovers {
    notes: mpsc::UnboundedSender<Leftover>,
}

impl Leftovers {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Leftover>) {
        let (notes, retries) = mpsc::unbounded_channel();
        (Self { notes }, retries)
    }

    /// Notes a pod that is not wholly undone, if there were errors.
    pub fn note_pod(&self, pod: &PodId, errors: &[Error]) {
        self.note(Leftover::Pod(pod.clone()), errors);
    }

    /// Notes a container that is not wholly undone, if there were errors.
    pub fn note_container(&self, container: &ContainerId, errors: &[Error]) {
        self.note(Leftover::Container(container.clone()), errors);
    }

    fn note(&self, leftover: Leftover, errors: &[Error]) {
        for error in errors {
            tracing::warn!(?leftover, %error, "something is left; it will be tried again");
        }
        if !errors.is_empty() {
            // The receiver ends with the engine; the next daemon removes what it does not know.
            let _ = self.notes.send(leftover);
        }
    }
}

/// Tries again, in the background, for as long as the engine lives.
pub(super) fn retry_in_background(engine: &Arc<Engine>, mut notes: mpsc::UnboundedReceiver<Leftover>) {
    let engine = Arc::downgrade(engine);
    tokio::spawn(async move {
        let mut open = BTreeSet::new();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                note = notes.recv() => match note {
                    Some(note) => {
                        open.insert(note);
                        pause = FIRST_PAUSE;
                    }
                    None => return,
                },
                () = tokio::time::sleep(pause), if !open.is_empty() => {
                    if !sweep(&engine, &mut open).await {
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    });
}

/// One try for each; false when the engine has ended.
async fn sweep(engine: &Weak<Engine>, open: &mut BTreeSet<Leftover>) -> bool {
    for leftover in open.clone() {
        let Some(engine) = engine.upgrade() else { return false };
        match sweep_one(&engine, &leftover).await {
            Ok(()) => {
                tracing::info!(?leftover, "nothing is left of it now");
                open.remove(&leftover);
            }
            Err(error) => tracing::warn!(?leftover, %error, "something is still left; it will be tried again"),
        }
    }
    true
}

async fn sweep_one(engine: &Engine, leftover: &Leftover) -> Result<()> {
    match leftover {
        Leftover::Pod(pod) => engine.sweep_pod(pod).await,
        Leftover::Container(container) => engine.sweep_container(container).await,
    }
}

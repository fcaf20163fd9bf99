//! Ending containers: asked politely, then by force.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Container, Engine, limited};
use crate::{ContainerState, Error, Kind, Result, operation::Operation};

/// How long the kernel may take to end a process that was sent SIGKILL; one that waits for a dead disk takes longer.
const KILL_LIMIT: Duration = Duration::from_secs(60);

/// The longest grace that anybody gets. A greater one is as good as for ever, and would overflow a clock.
const MAX_GRACE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long after SIGKILL a container is taken for frozen.
const FROZEN: Duration = Duration::from_millis(500);

const SIGKILL: i32 = 9;

/// Pause before it is looked whether a program catches its stop signal by now; it doubles up to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

impl Engine {
    /// Stops a container: its stop signal, then SIGKILL after the grace. A second call with a shorter grace shortens it.
    /// Unknown containers and those that do not run are fine.
    pub async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<()> {
        let container = match self.index.container(id) {
            Ok(container) => container,
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let deadline = Instant::now() + grace.min(MAX_GRACE);
        container.deadline.send_if_modified(|current| {
            let sooner = current.is_none_or(|current| deadline < current);
            if sooner {
                *current = Some(deadline);
            }
            sooner
        });
        let engine = Arc::clone(self);
        let object = container.id.to_string();
        let work = |operation: Arc<Operation>| async move { engine.do_stop(&container, grace, &operation).await };
        self.changes.run("stop container", object, 0, work).await
    }

    /// Kills a container and waits for its end.
    pub(super) async fn end_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        self.stop_container(container.id.as_str(), Duration::ZERO).await
    }

    async fn do_stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        grace: Duration,
        operation: &Operation,
    ) -> Result<()> {
        // A start that is under way is waited for: it is bounded, and there is nothing to signal before.
        drop(container.busy.lock().await);
        let result = self.stop_running(container, grace, operation).await;
        container.deadline.send_replace(None);
        result
    }

    async fn stop_running(&self, container: &Arc<Container>, grace: Duration, operation: &Operation) -> Result<()> {
        let record = container.record();
        let ContainerState::Running { pid, .. } = record.state else { return Ok(()) };
        let pod = self.index.pod(record.pod.as_str())?;
        let launcher = self.launcher(&pod.record().config.runtime_handler)?;
        let signal = async |signal: i32| {
            let Ok(shim) = pod.shim() else { return Ok(()) };
            match launcher.signal(&shim, &container.id, signal).await {
                // It has just ended, or the shim is gone and its end is being recorded.
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::FailedPrecondition | Kind::Unavailable) => {
                    Ok(())
                }
                result => result,
            }
        };
        if !grace.is_zero() {
            operation.stage("grace");
            let stop_signal = container.plan().stop_signal;
            let mut deaf = !catches(pid, stop_signal);
            signal(stop_signal).await?;
            let mut pause = FIRST_LOOK;
            let mut deadline = container.deadline.subscribe();
            loop {
                let until = deadline.borrow_and_update().unwrap_or_else(Instant::now);
                tokio::select! {
                    () = container.wait_exited() => return Ok(()),
                    () = tokio::time::sleep_until(until) => break,
                    changed = deadline.changed() => if changed.is_err() { break },
                    () = tokio::time::sleep(pause), if deaf => {
                        pause = (pause * 2).min(LONGEST_LOOK);
                        if catches(pid, stop_signal) {
                            deaf = false;
                            signal(stop_signal).await?;
                        }
                    }
                }
            }
        }
        operation.stage("kill");
        signal(SIGKILL).await?;
        // Somebody may have frozen it; v1 delivers nothing to a frozen process, not even this.
        if tokio::time::timeout(FROZEN, container.wait_exited()).await.is_err() {
            self.kill_rest(container).await;
        }
        limited(KILL_LIMIT, "its end after SIGKILL", async {
            container.wait_exited().await;
            Ok(())
        })
        .await
        .map_err(|error| {
            let why = "a process may wait for a disk or a network filesystem that does not answer";
            Error::new(error.kind(), format!("stop container {}: {error}: {why}", container.id))
        })
    }
}

/// Whether a process has a handler for a signal; yes if it cannot be told.
///
/// The kernel drops a signal to the first process of a PID namespace that has none. A program that is stopped right after
/// its start has not come to that yet: the signal is sent again once it has. It is asked before sending: a handler that
/// comes just between may be called twice, where a signal lost for good would cost the whole grace.
fn catches(pid: i32, signal: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| caught(&status, signal))
}

fn caught(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1u64.unbounded_shl(signal.unsigned_abs().wrapping_sub(1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_read_from_the_status_of_a_process() {
        let status = "SigBlk:\t0000000000000000\nSigCgt:\t0000000100004000\n";
        assert!(caught(status, 15) && caught(status, 33));
        assert!(!caught(status, 1) && !caught(status, 16) && !caught(status, 64));
        assert!(caught("nothing about signals", 15));
    }
}

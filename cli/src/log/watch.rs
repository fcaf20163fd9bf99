//! When to look at a log again: the kernel tells of changes in its folder.

use std::{os::fd::OwnedFd, path::Path, time::Duration};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::{Interest, unix::AsyncFd};

/// How often a log is looked at where the kernel tells nothing, as of a file server's folder or when all watches are in
/// use.
const LOOK: Duration = Duration::from_millis(100);

/// How often it is looked at anyway.
const ANYWAY: Duration = Duration::from_secs(1);

/// A watched log.
#[derive(Debug)]
pub(crate) struct Watch {
    changes: Option<AsyncFd<OwnedFd>>,
}

impl Watch {
    /// Watches the folder of a log: the log itself is renamed and made anew.
    pub(crate) fn new(log: &Path) -> Self {
        let watch = || {
            let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
            let kinds = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            inotify::add_watch(&changes, log.parent()?, kinds).ok()?;
            register(changes)
        };
        Self { changes: watch() }
    }

    /// Waits until there may be something to see.
    pub(crate) async fn changed(&mut self) {
        let Some(changes) = &self.changes else { return tokio::time::sleep(LOOK).await };
        let told = async {
            let Ok(mut ready) = changes.readable().await else { return std::future::pending().await };
            // What has changed does not matter; all of it is taken, so that the next look waits for the next change.
            let mut buffer = [0; 4096];
            while let Ok(1..) = rustix::io::read(changes.get_ref(), &mut buffer) {}
            ready.clear_ready();
        };
        let _ = tokio::time::timeout(ANYWAY, told).await;
    }
}

#[expect(
    deprecated,
    reason = "the other way is unsafe code, for types that may give another descriptor later; ours is owned"
)]
fn register(changes: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(changes, Interest::READABLE).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Watch;

    #[tokio::test]
    async fn changes_are_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let mut watch = Watch::new(&log);
        for _ in 0..3 {
            let begin = Instant::now();
            std::fs::write(&log, "x").unwrap();
            watch.changed().await;
            assert!(begin.elapsed() < Duration::from_millis(900));
        }
        // All of that was taken.
        assert!(tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_err());
        // A folder that is not there cannot be watched.
        let mut watch = Watch::new(&folder.path().join("none/0.log"));
        tokio::time::timeout(Duration::from_millis(900), watch.changed()).await.unwrap();
    }
}

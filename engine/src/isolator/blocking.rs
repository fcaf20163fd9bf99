//! Looking at paths that a user chose. A dead NFS server makes stat(2) wait for ever, so it happens on a thread of its
//! own, is waited for within a limit, and only so many such threads may hang at a time.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{Error, Kind, Result};

/// How long a look may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How many looks may be under way. Most of tokio's threads stay free for others whatever hangs.
static SLOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(64)));

/// The path that is being looked at, for the message when it takes too long.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<String>>);

impl Progress {
    /// Says what is looked at from now on.
    pub fn set(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Runs `look` on a thread where it may block.
pub async fn look<T, F>(look: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Progress) -> Result<T> + Send + 'static,
{
    look_within(LIMIT, look).await
}

/// The same with a limit of the caller's.
pub async fn look_within<T, F>(limit: Duration, look: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Progress) -> Result<T> + Send + 'static,
{
    let progress = Progress::default();
    progress.set("other volumes, which do not answer either");
    let theirs = progress.clone();
    let work = async {
        // Never closed, so this cannot fail; the slot is given back by the thread, however late.
        let slot = Arc::clone(&SLOTS).acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            look(&theirs)
        })
        .await
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(e)) => Err(Error::with(Kind::Internal, "looking at paths of the host", e)),
        Err(_) => Err(Error::new(
            Kind::DeadlineExceeded,
            format!(
                "{} did not answer within {} s; is the file system behind it reachable?",
                progress.get(),
                limit.as_secs_f32()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_result() {
        assert_eq!(look(|_| Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn names_what_hangs() {
        let (release, hang) = std::sync::mpsc::channel::<()>();
        // Long enough for the thread to have begun, on any machine.
        let error = look_within(Duration::from_secs(3), move |progress| {
            progress.set("/mnt/dead");
            let _ = hang.recv();
            Ok(())
        })
        .await
        .unwrap_err();
        drop(release);
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
        assert!(error.to_string().starts_with("/mnt/dead did not answer"), "{error}");
    }
}

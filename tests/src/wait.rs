//! Waiting, always with a limit and a name.

use std::{
    env,
    sync::LazyLock,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(10);

/// How many times longer than on a plain machine everything may take, where the tests run on an emulated one.
static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
    let named = env::var("TRIPOD_TESTS_PATIENCE").ok().map(|factor| factor.parse().expect("a factor"));
    named.unwrap_or(1)
});

/// A limit of this machine: the one given, or more where it is slow.
pub fn patient(limit: Duration) -> Duration {
    limit * *PATIENCE
}

/// Asks again and again until there is an answer, and panics with the name of what was waited for after the limit.
pub async fn eventually<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let (begin, limit) = (Instant::now(), patient(limit));
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Panics with the name of what was waited for if it takes longer than the limit.
pub async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    let limit = patient(limit);
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => panic!("{what} took longer than {limit:?}"),
    }
}

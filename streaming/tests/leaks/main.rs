//! What is left of sessions: nothing. Each test has the process for itself, because it counts what the process holds.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../streaming/http.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod http;
#[path = "../streaming/listener.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod listener;
mod many;
#[path = "../streaming/spdy_client.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod spdy_client;
mod vanish;
#[path = "../streaming/world.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod world;
#[path = "../streaming/ws_client.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod ws_client;

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::world::World;

/// What the process holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Targets of descriptors, with how many there are of each kind.
    descriptors: BTreeMap<String, usize>,
    children: usize,
    sessions: u64,
}

fn held(world: &World) -> Held {
    let mut descriptors = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        // The one that reads the folder is gone afterwards.
        if let Ok(target) = fs::read_link(entry.unwrap().path()) {
            let target = target.to_string_lossy();
            *descriptors.entry(target.split(':').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    let children = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // Threads come and go.
        fs::read_to_string(task.ok()?.path().join("children")).ok()
    });
    let children = children.map(|list| list.split_whitespace().count()).sum();
    Held { descriptors, children, sessions: world.active() }
}

/// What it holds once nothing is under way any more.
async fn settled(world: &World) -> Held {
    let begin = Instant::now();
    let (mut last, mut since) = (held(world), begin);
    while last.sessions > 0 || since.elapsed() < Duration::from_millis(500) {
        assert!(begin.elapsed() < Duration::from_secs(60), "it goes on: {last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = held(world);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// A server that nobody else uses.
struct Alone {
    world: World,
    /// Port of a service that sends back what it gets.
    service: u16,
}

impl std::ops::Deref for Alone {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

/// Runs work on a server, then waits until the process holds what it held before.
fn nothing_is_left<F>(limit: Duration, work: impl FnOnce(Arc<Alone>) -> F)
where
    F: Future<Output = ()>,
{
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let service = listener::echo().await;
        let world = Arc::new(Alone { world: World::start().await, service });
        // The first process makes the runtime watch for the ends of children.
        let warm = world.sh("true", world::OUT);
        spdy_client::Client::start(&warm, "", world::OUT).await.finish().await;
        let before = settled(&world).await;
        work(world.clone()).await;
        let start = Instant::now();
        loop {
            let now = held(&world);
            if now == before {
                return;
            }
            assert!(start.elapsed() < limit, "before: {before:?}\nnow: {now:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

use std::sync::mpsc;

use super::*;
use crate::{config::Config, layers::Staging, service, unpack::Unpacked};

fn failure() -> io::Result<()> {
    Err(rustix::io::Errno::IO.into())
}

#[tokio::test]
async fn what_a_disk_has_failed_to_take_is_never_on_it() {
    let folder = tempfile::tempdir().unwrap();
    // Without the background work, which would sync.
    let config = || Config { root: folder.path().to_owned(), ..Config::default() };
    let (inner, _) = service::open(config()).unwrap();
    let fetcher = &inner.fetcher;
    let install = |name: &str| {
        let layer = Layer::new(Digest::of(name.as_bytes()), Unpacked::default(), &fetcher.boot);
        Staging::new(&fetcher.layout, &fetcher.trash).unwrap().install(&fetcher.layout, &layer).unwrap();
        let layer = Arc::new(layer);
        fetcher.catalog.state().layers.insert(layer.diff_id.clone(), Arc::clone(&layer));
        layer
    };
    let on_disk = |name: &str| {
        let record = fetcher.layout.layer(&Digest::of(name.as_bytes())).join("layer.json");
        !std::fs::read_to_string(record).unwrap().contains("unsynced_since_boot")
    };
    install("good");
    assert_eq!(inner.disk.sync(fetcher).unwrap(), 1);
    assert!(on_disk("good"));

    install("there");
    let before = waiting(fetcher);
    install("came");
    // One that is on its way.
    let (go, wait) = mpsc::channel::<()>();
    let meter = crate::progress::LayerMeter::empty(Digest::of(b"late"));
    let slow = fetcher.flights.join(Digest::of(b"late"), meter, || async move {
        let waited = tokio::task::spawn_blocking(move || wait.recv()).await;
        Err(tripod_engine::Error::new(tripod_engine::Kind::Internal, format!("{waited:?}")))
    });
    inner.disk.conclude(fetcher, &before, failure()).unwrap_err();
    drop(go);
    slow.outcome.await.unwrap_err();
    install("late");
    install("new");
    // Each failure is told once: the disk is fine, it says.
    inner.disk.sync(fetcher).unwrap();
    inner.disk.sync(fetcher).unwrap();
    assert!(["there", "came", "late"].iter().all(|name| !on_disk(name)));
    assert!(on_disk("good") && on_disk("new"));
    assert_eq!(waiting(fetcher).len(), 0);
    // Nor does a new daemon of the same boot say otherwise.
    drop(inner);
    let (inner, _) = service::open(config()).unwrap();
    inner.disk.sync(&inner.fetcher).unwrap();
    assert!(["there", "came", "late"].iter().all(|name| !on_disk_at(folder.path(), name)));
}

fn on_disk_at(root: &Path, name: &str) -> bool {
    let record = root.join("layers").join(Digest::of(name.as_bytes()).hex()).join("layer.json");
    std::fs::read_to_string(record).is_ok_and(|record| !record.contains("unsynced_since_boot"))
}

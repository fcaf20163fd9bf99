use std::{os::fd::OwnedFd, path::Path, sync::Mutex};

use super::*;
use crate::{
    isolator::fixture::Fixture,
    plugin::{MappedIds, RootFs},
    usage::WritableLayer,
};

/// Every layer takes this much, and the kernel lets it have so much more; asks that were made.
#[derive(Debug, Default)]
struct Layers {
    bytes: u64,
    left: Option<u64>,
    asked: Mutex<Vec<Duration>>,
}

#[async_trait]
impl Provisioner for Layers {
    fn name(&self) -> &'static str {
        "layers"
    }

    async fn provision(&self, _: &str, _: &ContainerId, _: Option<&MappedIds>) -> Result<RootFs> {
        unreachable!("nothing is provisioned here")
    }

    async fn volume(&self, _: &str, _: &Path, _: &ContainerId, _: Option<&MappedIds>) -> Result<OwnedFd> {
        unreachable!("nothing is provisioned here")
    }

    async fn usage(&self, _: &ContainerId, age: Duration) -> Result<WritableLayer> {
        self.asked.lock().unwrap().push(age);
        Ok(WritableLayer { bytes: self.bytes, inodes: 1 })
    }

    async fn left(&self, _: &ContainerId) -> Option<u64> {
        self.left
    }

    async fn destroy(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

fn limits(common: Option<u64>, small: Option<u64>) -> ByHandler<Limits> {
    let limits = |disk_bytes| Limits { disk_bytes, ..Limits::default() };
    ByHandler::new(limits(common), [("small".to_owned(), limits(small))].into())
}

const INTERVAL: Duration = Duration::from_secs(10);

#[tokio::test]
async fn only_layers_with_a_limit_are_counted_and_only_above_it_they_are_told() {
    let layers = Arc::new(Layers { bytes: 1000, ..Layers::default() });
    let disk = Disk::new(Arc::clone(&layers) as Arc<dyn Provisioner>, &limits(None, Some(999)), INTERVAL).unwrap();
    assert_eq!(disk.watch_interval(), Some(INTERVAL));
    let mut fixture = Fixture::new();
    let plan = fixture.prepare(&disk).await.unwrap();
    assert_eq!(disk.watch(&fixture.id, &plan).await.unwrap(), None);
    assert!(layers.asked.lock().unwrap().is_empty());

    fixture.pod.runtime_handler = "small".to_owned();
    let mut plan = fixture.prepare(&disk).await.unwrap();
    let told = disk.watch(&fixture.id, &plan).await.unwrap().unwrap();
    assert_eq!(told.reason.as_deref(), Some("DiskLimitExceeded"));
    assert!(told.message.contains("1000") && told.message.contains("999"), "{told:?}");
    plan.resources.disk_limit = Some(1000);
    assert_eq!(disk.watch(&fixture.id, &plan).await.unwrap(), None);
    assert_eq!(*layers.asked.lock().unwrap(), [INTERVAL / 2; 2]);
}

#[tokio::test]
async fn who_failed_with_next_to_nothing_left_is_told() {
    for (limit, left, told) in [
        (Some(8 << 20), Some(1 << 20), true),
        (Some(8 << 20), Some(3 << 20), false),
        (Some(1 << 30), Some(3 << 20), true),
        (Some(1 << 30), Some(5 << 20), false),
        (Some(1 << 30), None, false),
        (None, Some(0), false),
    ] {
        let layers = Arc::new(Layers { left, ..Layers::default() });
        let disk = Disk::new(layers, &limits(limit, Some(1 << 20)), INTERVAL).unwrap();
        let fixture = Fixture::new();
        let mut plan = fixture.prepare(&disk).await.unwrap();
        plan.container = fixture.id.to_string();
        let limitation = disk.limitation(&plan).await;
        assert_eq!(limitation.is_some(), told, "{limit:?} {left:?}");
        if let Some(limitation) = limitation {
            assert_eq!(limitation.reason, None);
            assert!(limitation.message.contains(&format!("{} bytes left", left.unwrap())), "{limitation:?}");
        }
    }
}

#[test]
fn without_limits_there_is_no_such_isolator() {
    assert!(Disk::new(Arc::new(Layers::default()), &limits(None, None), INTERVAL).is_none());
}

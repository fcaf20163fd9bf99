use super::*;
use crate::{PodConfig, PodId, PodState};

fn event(at: i64) -> EngineEvent {
    let pod = PodRecord {
        id: PodId::random(),
        config: Arc::new(PodConfig::default()),
        created_at: 0,
        state: PodState::NotReady,
        ips: Vec::new(),
    };
    EngineEvent { kind: EventKind::Created, id: pod.id.to_string(), pod: Arc::new(pod), containers: Vec::new(), at }
}

#[tokio::test]
async fn every_subscriber_gets_every_event_in_order() {
    let bus = EventBus::default();
    assert!(!bus.is_heard());
    let (mut a, mut b) = (bus.subscribe(), bus.subscribe());
    for at in 0..10 {
        bus.publish(event(at));
    }
    for at in 0..10 {
        assert_eq!(a.next().await.unwrap().at, at);
        assert_eq!(b.next().await.unwrap().at, at);
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_dropped_and_nobody_waits_for_it() {
    let bus = EventBus::default();
    let mut slow = bus.subscribe();
    for at in 0..=BACKLOG as i64 {
        bus.publish(event(at));
    }
    assert!(slow.next().await.is_none());
}

use tokio::time::{Duration, Instant};

use super::{Kind, Label, Pairs, Placed};

fn label(id: u32, headers: &[(&str, &'static str)]) -> Option<Label> {
    Label::read(id, |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
}

fn named(kind: &'static str, request: &'static str) -> Label {
    label(1, &[("streamType", kind), ("port", "80"), ("requestID", request)]).unwrap()
}

fn numbered(kind: &'static str, id: u32) -> Label {
    label(id, &[("streamType", kind), ("port", "80")]).unwrap()
}

#[test]
fn headers_are_complete() {
    let all = label(1, &[("streamType", "data"), ("port", "8080"), ("requestID", "1")]).unwrap();
    assert_eq!((all.kind, all.port), (Kind::Data, 8080));
    for headers in [
        &[("port", "80"), ("requestID", "1")][..],
        &[("streamType", "data"), ("requestID", "1")],
        &[("streamType", "stdin"), ("port", "80")],
        &[("streamType", "data"), ("port", "0")],
        &[("streamType", "data"), ("port", "65536")],
        &[("streamType", "data"), ("port", "-1")],
        &[("streamType", "data"), ("port", "http")],
    ] {
        assert_eq!(label(5, headers), None, "{headers:?}");
    }
    assert_eq!(label(1, &[("streamType", "data"), ("port", "80")]), None, "nothing is before the first stream");
}

#[tokio::test]
async fn streams_of_one_request_are_a_pair_in_any_order() {
    let mut pairs = Pairs::new(Duration::from_secs(30));
    assert_eq!(pairs.place(named("data", "7"), "d7"), Placed::Waits);
    assert_eq!(pairs.place(named("error", "8"), "e8"), Placed::Waits);
    assert_eq!(pairs.place(named("data", "8"), "d8"), Placed::Pair { data: "d8", error: "e8" });
    assert_eq!(pairs.place(named("data", "7"), "again"), Placed::Twice("again"));
    assert_eq!(pairs.place(named("error", "7"), "e7"), Placed::Pair { data: "d7", error: "e7" });
}

#[tokio::test]
async fn neighbours_are_a_pair_without_a_request() {
    let mut pairs = Pairs::new(Duration::from_secs(30));
    assert_eq!(pairs.place(numbered("error", 1), 1), Placed::Waits);
    assert_eq!(pairs.place(numbered("data", 3), 3), Placed::Pair { data: 3, error: 1 });
    assert_eq!(pairs.place(numbered("error", 5), 5), Placed::Waits);
    assert_eq!(pairs.place(numbered("data", 9), 9), Placed::Waits);
    assert_eq!(pairs.place(named("data", "5"), 11), Placed::Waits, "a number is no request");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let mut pairs = Pairs::new(Duration::from_secs(30));
    assert_eq!(pairs.next_end(), None);
    pairs.place(named("error", "1"), "paired");
    pairs.place(named("data", "1"), "paired");
    pairs.place(named("error", "2"), "late");
    tokio::time::advance(Duration::from_secs(10)).await;
    pairs.place(named("data", "1"), "number used again");
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(pairs.expired(Instant::now()), [(Kind::Error, "late")]);
    assert_eq!(pairs.next_end(), Some(Instant::now() + Duration::from_secs(10)));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(pairs.expired(Instant::now()), [(Kind::Data, "number used again")]);
    assert_eq!(pairs.next_end(), None);
}

use std::{collections::BTreeMap, sync::Arc};

use tripod_engine::{ContainerId, ImageConfig};

use super::*;
use crate::{catalog::Lease, layers::Layer, unpack::Unpacked};

fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

fn record(seed: &str, layers: &[&str], created: Option<&str>, label: Option<(&str, &str)>) -> ImageRecord {
    ImageRecord {
        id: digest(seed),
        blobs: [(digest(&format!("{seed}-manifest")), 7)].into(),
        layers: layers.iter().map(|layer| digest(layer)).collect(),
        size: 1,
        created: created.map(str::to_owned),
        config: ImageConfig::default(),
        volumes: Vec::new(),
        labels: label.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        artifact: None,
    }
}

/// Five images on a common base: with a tag, without one, pinned, used, old with a label.
fn state() -> State {
    let mut state = State::default();
    for image in [
        record("tagged", &["base", "1"], None, None),
        record("dangling", &["base", "2"], Some("2026-05-01T00:00:00Z"), None),
        record("pinned", &["3"], None, None),
        record("used", &["4"], None, None),
        record("old", &["base", "5"], Some("2020-01-01T00:00:00.5+01:00"), Some(("team", "blue"))),
    ] {
        state.images.insert(image.id.clone(), Arc::new(image));
    }
    for (name, image) in [("r.example/a:1", "tagged"), ("r.example/pause:3", "pinned"), ("r.example/old:1", "old")] {
        state.names.insert(name.to_owned(), digest(image));
    }
    state.names.insert(format!("r.example/a@{}", digest("dangling-manifest")), digest("dangling"));
    for name in ["base", "1", "2", "3", "4", "5", "partial"] {
        let unpacked = Unpacked { disk_bytes: 1000, ..Unpacked::default() };
        state.layers.insert(digest(name), Arc::new(Layer::new(digest(name), unpacked, "boot")));
    }
    let lease = Lease { images: [(digest("used"), vec![digest("4")])].into() };
    state.leases.insert(ContainerId::random(), lease);
    state
}

fn chosen(request: &PruneRequest) -> (Vec<&'static str>, u64, u64) {
    let (chosen, layers, pruned) = request.choose(&state(), &["r.example/pause:*".to_owned()]);
    let mut names: Vec<&str> = ["tagged", "dangling", "pinned", "used", "old"]
        .into_iter()
        .filter(|name| chosen.contains(&digest(name)))
        .collect();
    names.sort_unstable();
    assert_eq!(pruned.images.len(), names.len());
    assert_eq!(pruned.layers, layers.len() as u64);
    (names, pruned.layers, pruned.bytes)
}

#[test]
fn only_what_nobody_needs_is_chosen() {
    // The layer of a pull that was never completed goes in any case.
    assert_eq!(chosen(&PruneRequest::default()), (vec!["dangling"], 2, 2007));
    let all = PruneRequest { all: true, ..PruneRequest::default() };
    assert_eq!(chosen(&all), (vec!["dangling", "old", "tagged"], 5, 5021));
}

#[test]
fn filters_hold_together() {
    let all = PruneRequest { all: true, ..PruneRequest::default() };
    let before = |time: &str| PruneRequest { created_before: Some(time.parse().unwrap()), ..all.clone() };
    // Who does not tell its age is not old.
    assert_eq!(chosen(&before("2030-01-01T00:00:00Z")).0, ["dangling", "old"]);
    assert_eq!(chosen(&before("2021-01-01T00:00:00Z")).0, ["old"]);
    assert!(chosen(&before("2019-01-01T00:00:00Z")).0.is_empty());
    let label = |value: Option<&str>| PruneRequest {
        labels: vec![("team".to_owned(), value.map(str::to_owned))],
        ..all.clone()
    };
    assert_eq!(chosen(&label(None)).0, ["old"]);
    assert_eq!(chosen(&label(Some("blue"))).0, ["old"]);
    assert!(chosen(&label(Some("red"))).0.is_empty());
    assert!(chosen(&PruneRequest { all: false, ..label(None) }).0.is_empty());
}

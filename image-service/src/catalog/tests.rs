use super::*;
use crate::reference::Reference;

fn record(seed: &str) -> ImageRecord {
    ImageRecord {
        id: Digest::of(seed.as_bytes()),
        blobs: [(Digest::of(b"manifest"), 1)].into(),
        layers: vec![Digest::of(b"layer")],
        size: 1,
        created: None,
        config: ImageConfig::default(),
        volumes: Vec::new(),
        labels: BTreeMap::new(),
        artifact: None,
    }
}

#[test]
fn what_was_committed_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.redb");
    let reference: Reference = "busybox".parse().unwrap();
    let catalog = Catalog::open(&path).unwrap();
    catalog.change_now(|state| Change::pulled(state, record("a"), &reference, &Digest::of(b"manifest"))).unwrap();
    assert!(matches!(Catalog::open(&path), Err(CatalogError::Open { .. })), "two at once");
    let names = catalog.state().names.clone();
    drop(catalog);
    let catalog = Catalog::open(&path).unwrap();
    let state = catalog.state();
    assert_eq!(state.names, names);
    assert_eq!(*state.images[&Digest::of(b"a")], record("a"));
    for spec in
        ["busybox", "docker.io/library/busybox:latest", &Digest::of(b"a").to_string(), &Digest::of(b"a").hex()[..5]]
    {
        assert_eq!(state.find(spec).unwrap().id(), &Digest::of(b"a"), "{spec}");
    }
    for spec in ["", "busybox:1", "sha256:", "BUSY BOX", "ffffff"] {
        assert_eq!(state.find(spec), None, "{spec}");
    }
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.redb");
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(database::META).unwrap().insert("schema", "99").unwrap();
    write.commit().unwrap();
    drop(database);
    let message = Catalog::open(&path).unwrap_err().to_string();
    assert!(message.contains("format 99") && message.contains("newer tripod"), "{message}");
}

#[test]
fn a_beginning_that_two_images_share_finds_none() {
    let mut state = State::default();
    let mut seeds = (0_u32..).map(|seed| record(&seed.to_string()));
    let first = seeds.next().unwrap();
    let second = seeds.find(|other| other.id.hex()[..2] == first.id.hex()[..2]).unwrap();
    for image in [&first, &second] {
        state.images.insert(image.id.clone(), Arc::new(image.clone()));
    }
    assert_eq!(state.find(&first.id.hex()[..2]), None);
    assert_eq!(state.find(&first.id.hex()[..20]).unwrap().id(), &first.id);
}

#[test]
fn pins_count() {
    let (mut state, digest) = (State::default(), Digest::of(b"x"));
    state.pin(&[digest.clone(), digest.clone()]);
    state.unpin(std::slice::from_ref(&digest));
    assert!(state.needed().contains(&digest));
    state.unpin(std::slice::from_ref(&digest));
    assert!(state.needed().is_empty());
}

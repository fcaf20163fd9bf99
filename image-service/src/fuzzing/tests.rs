use std::{fs, path::Path};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::*;

/// The committed corpus of a fuzz target goes through it.
fn each(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut ran = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-")) {
            println!("{}", path.display());
            run(&fs::read(path).unwrap());
            ran += 1;
        }
    }
    assert!(ran >= 5, "{} has only {ran} seeds", folder.display());
}

#[test]
fn layers() {
    each("layer", layer);
}

#[test]
fn hostile_entries() {
    each("entries", entries);
}

#[test]
fn manifests() {
    each("manifest", manifest);
}

#[test]
fn bundles() {
    each("bundle", bundle);
}

#[test]
fn references() {
    each("reference", reference);
}

/// The same archives in every run; PROPTEST_CASES=100000 makes more.
#[test]
fn no_archive_does_harm() {
    let cases = std::env::var("PROPTEST_CASES").map_or(200, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let result = runner.run(&bytes, |bytes| {
        entries(&bytes);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

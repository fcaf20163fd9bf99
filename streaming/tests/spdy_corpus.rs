//! The committed corpus of the fuzz targets goes through their entry points.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test must fail loudly where it stands")]

use std::{fs, path::Path};

#[path = "../fuzz/entry/spdy.rs"]
mod entry;

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
fn frames() {
    each("spdy_frames", entry::frames);
}

#[test]
fn connections() {
    each("spdy_connection", entry::connection);
}

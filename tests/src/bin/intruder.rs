//! A program for images of tests: does, as fast as it can, what somebody in a container would do to get out.
//!
//! * `intruder exchange FOLDER A B…`: exchanges A in FOLDER with each B in turn, for ever.
//! * `intruder watch FILE`: looks at every process that appears, for a way to FILE of the host or to a directory that is
//!   not the container's; says what it found, and `done N` when `/stop` exists, after N looks at other processes.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test must fail loudly where it stands")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["exchange", folder, first, others @ ..] if !others.is_empty() => exchange(Path::new(folder), first, others),
        ["watch", file] => watch(file),
        _ => panic!("what is {arguments:?}?"),
    }
}

fn exchange(folder: &Path, first: &str, others: &[&str]) {
    println!("begun");
    for other in others.iter().cycle() {
        // Somebody may be using it; then it goes next time.
        let _ = renameat_with(CWD, folder.join(first), CWD, folder.join(other), RenameFlags::EXCHANGE);
    }
}

fn watch(file: &str) {
    let own = own();
    let (mut looks, mut found) = (0_u64, BTreeSet::new());
    println!("begun");
    while !Path::new("/stop").exists() {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if pid == std::process::id() {
                continue;
            }
            looks += 1;
            look(&entry.path(), file, &own, &mut found);
        }
    }
    for what in found {
        println!("found {what}");
    }
    println!("done {looks}");
}

/// File systems of this container.
fn own() -> BTreeSet<u64> {
    let points = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = points.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter_map(|point| fs::metadata(point).ok()).map(|meta| meta.dev()).collect()
}

fn look(process: &Path, file: &str, own: &BTreeSet<u64>, found: &mut BTreeSet<String>) {
    for name in ["root", "cwd"] {
        let door = process.join(name);
        if fs::read_to_string(door.join(file.trim_start_matches('/'))).is_ok_and(|text| text == "host") {
            found.insert(format!("{file} through {name}"));
        }
    }
    for fd in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let Ok(meta) = fs::metadata(fd.path()) else { continue };
        let target = fs::read_link(fd.path()).unwrap_or_else(|_| PathBuf::from("?"));
        if meta.is_dir() && !own.contains(&meta.dev()) {
            found.insert(format!("a directory: {}", target.display()));
        }
        if target.to_string_lossy().contains("shim.") || target.to_string_lossy().starts_with("mnt:") {
            found.insert(format!("{}", target.display()));
        }
    }
}

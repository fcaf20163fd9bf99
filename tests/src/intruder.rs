//! The program for images that tries to get out, `src/bin/intruder.rs`, with the libraries that it needs.

use std::{fs, path::PathBuf, process::Command};

use crate::{Tree, busybox};

/// Where it is, if it is not where cargo puts programs.
const PROGRAM: &str = "TRIPOD_TESTS_INTRUDER";

/// Busybox and `/bin/intruder`.
pub fn intruder() -> Tree {
    let program = std::env::var_os(PROGRAM).map_or_else(beside, PathBuf::from);
    let bytes = fs::read(&program).unwrap_or_else(|error| panic!("{} ({PROGRAM}): {error}", program.display()));
    let mut tree = busybox().file("bin/intruder", 0o755, bytes);
    let needed = Command::new("ldd").arg(&program).output().expect("ldd (Debian: libc-bin)");
    for word in String::from_utf8_lossy(&needed.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        tree = tree.file(word.trim_start_matches('/'), 0o755, fs::read(word).expect("a library"));
    }
    tree
}

/// This program is `TARGET/PROFILE/deps/it-HASH`.
fn beside() -> PathBuf {
    let own = std::env::current_exe().expect("this program");
    own.ancestors().nth(2).expect("this program is in a target folder").join("intruder")
}

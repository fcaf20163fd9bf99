//! The same on other filesystems than the machine's: what umoci is asked, and what files in common, repair and a restart
//! need of a filesystem. Each is made in a file, and mounted in a namespace of its own, in which these tests are run again.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Bytes of a filesystem. Nothing is written that is not used.
const BYTES: u64 = 3 << 30;
/// Seconds that it may take on a machine that has much else to do.
const LIMIT: &str = "300";
const TESTS: [&str; 7] = [
    "oracle::all_forms_of_tar_give_the_same_as_umoci",
    "layers::the_result_is_that_of_umoci",
    "dedup::what_is_equal_in_all_is_stored_once",
    "dedup::links_of_one_layer_are_none_of_another",
    "check::every_kind_of_damage_is_found_and_repaired",
    "mounts::images_without_layers_and_with_very_many",
    "store::a_restart_changes_nothing_and_clears_up",
];

/// Runs [`TESTS`] on what `make` and `mount` leave at `$POINT`, out of `$DISK` if they want one.
fn on(make: &str, mount: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (disk, point) = (folder.path().join("disk"), folder.path().join("point"));
    std::fs::File::create(&disk).unwrap().set_len(BYTES).unwrap();
    std::fs::create_dir(&point).unwrap();
    let script = format!("set -e; {make}; {mount}; TMPDIR=$POINT exec timeout {LIMIT} \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    command.arg(std::env::current_exe().unwrap()).arg("--exact").args(TESTS);
    command.env("DISK", &disk).env("POINT", &point).stdin(Stdio::null());
    let output = command.output().expect("unshare (Debian: util-linux)");
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("7 passed"), "{make}, {mount}: {told}{error}");
    assert!(is_empty(&point), "the filesystem is still mounted");
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn xfs() {
    on("mkfs.xfs -q -m reflink=1 $DISK", "mount -o loop $DISK $POINT");
}

#[test]
fn btrfs() {
    on("mkfs.btrfs -q $DISK 2>/dev/null", "mount -o loop $DISK $POINT");
}

#[test]
fn memory() {
    on(":", "mount -t tmpfs -o size=1g tmpfs $POINT");
}

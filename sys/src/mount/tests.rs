use std::fs;

use rustix::fs::{Mode, OFlags, mkdirat, openat};

use super::*;

fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "this test mounts and needs root");
}

#[test]
fn a_detached_tmpfs_can_be_used_and_made_read_only() {
    need_root();
    let mount = new_filesystem("tmpfs", &[("size", Value::String("76k"))], Attributes::default()).unwrap();
    mkdirat(&mount, "dir", Mode::from_raw_mode(0o755)).unwrap();
    set(&mount, Attributes { read_only: true, ..Attributes::default() }, Some(Propagation::Private), true).unwrap();
    let refused = mkdirat(&mount, "other", Mode::from_raw_mode(0o755)).unwrap_err();
    assert_eq!(refused, rustix::io::Errno::ROFS);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("size=76k"), "a detached mount is in nobody's list");
}

#[test]
fn the_kernel_explains_a_wrong_option() {
    need_root();
    let error = new_filesystem("tmpfs", &[("nonsense", Value::String("1"))], Attributes::default()).unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
}

#[test]
fn a_copy_of_a_folder_is_a_mount_of_its_own() {
    need_root();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    let copy = clone_path(None, dir.path(), true).unwrap();
    set(&copy, Attributes { read_only: true, ..Attributes::default() }, None, false).unwrap();
    let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    assert!(openat(&copy, "new", create, Mode::from_raw_mode(0o600)).is_err());
    fs::write(dir.path().join("new"), "the folder itself is writable").unwrap();
    assert!(openat(&copy, "new", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).is_ok());
}

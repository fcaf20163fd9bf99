use std::os::unix::fs::symlink;

use rustix::fs::mkdirat;

use super::*;

/// Makes a chain of folders, each with a file of a page in it and, if wanted, two more folders beside it.
fn chain(dir: &Path, depth: usize, more: bool) {
    let mut folder: OwnedFd = std::fs::File::open(dir).unwrap().into();
    let make = |folder: &OwnedFd, name: &str| mkdirat(folder, name, Mode::from(0o700)).unwrap();
    for number in 0..depth {
        // Filesystems list folders by age or by a hash of the name: either way most often not all others come first.
        let name = format!("{number:0>200}");
        if more {
            make(&folder, &format!("before-{number}"));
        }
        make(&folder, &name);
        if more {
            make(&folder, &format!("after-{number}"));
        }
        folder = openat(&folder, &name, FOLDER, Mode::empty()).unwrap();
        let file = openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from(0o600)).unwrap();
        rustix::io::write(&file, &[1; 4096]).unwrap();
    }
}

#[test]
fn files_links_and_folders_are_counted_once_and_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let layer = dir.path().join("layer");
    std::fs::create_dir_all(layer.join("a/b")).unwrap();
    std::fs::write(layer.join("a/file"), vec![1; 1 << 20]).unwrap();
    std::fs::hard_link(layer.join("a/file"), layer.join("a/b/same")).unwrap();
    std::fs::write(dir.path().join("outside"), vec![1; 1 << 20]).unwrap();
    symlink(dir.path(), layer.join("a/link")).unwrap();
    let usage = count(&layer).unwrap();
    // The layer, two folders, the file and the link.
    assert_eq!(usage.inodes, 5);
    assert!((1 << 20..2 << 20).contains(&usage.bytes), "{usage:?}");
}

#[test]
fn what_is_too_deep_for_a_path_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    chain(dir.path(), 200, false);
    let usage = count(dir.path()).unwrap();
    assert_eq!(usage.inodes, 401);
    assert!(usage.bytes >= 200 * 4096, "{usage:?}");
}

#[test]
fn folders_that_would_take_all_descriptors_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    chain(dir.path(), 300, true);
    assert_eq!(count(dir.path()).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
}

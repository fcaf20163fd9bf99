use std::os::fd::OwnedFd;

use rustix::fs::mkdirat;

use super::*;

#[test]
fn deletes_what_is_too_deep_for_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let trash = Trash::new(dir.path().join("trash"));
    std::fs::create_dir_all(dir.path().join("trash")).unwrap();
    std::fs::create_dir_all(dir.path().join("deep")).unwrap();
    let mut folder: OwnedFd = std::fs::File::open(dir.path().join("deep")).unwrap().into();
    let name = "x".repeat(200);
    for _ in 0..300 {
        mkdirat(&folder, &name, Mode::from(0o700)).unwrap();
        folder = openat(&folder, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        openat(&folder, "file", OFlags::CREATE, Mode::from(0o600)).unwrap();
    }
    drop(folder);
    std::os::unix::fs::symlink("/", dir.path().join("deep/link")).unwrap();
    trash.take(&dir.path().join("deep")).unwrap();
    trash.take(&dir.path().join("absent")).unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    trash.take(&dir.path().join("file")).unwrap();
    trash.empty().unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
}

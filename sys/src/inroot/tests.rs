use std::{
    fs::{self, File},
    os::unix::fs::symlink,
};

use super::*;

fn root() -> (tempfile::TempDir, File) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    let fd = File::open(dir.path().join("root")).unwrap();
    (dir, fd)
}

fn nothing_outside(dir: &tempfile::TempDir) {
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn directories_are_made_inside() {
    let (dir, fd) = root();
    mkdir_all(&fd, Path::new("/a/b/c"), Mode::from_raw_mode(0o755)).unwrap();
    mkdir_all(&fd, Path::new("/a/b/c"), Mode::from_raw_mode(0o755)).unwrap();
    mkdir_all(&fd, Path::new("/"), Mode::from_raw_mode(0o755)).unwrap();
    assert!(dir.path().join("root/a/b/c").is_dir());
}

#[test]
fn dots_end_at_the_root() {
    let (dir, fd) = root();
    mkdir_all(&fd, Path::new("/../../outside/x"), Mode::from_raw_mode(0o755)).unwrap();
    touch(&fd, Path::new("../../outside/y/z")).unwrap();
    assert!(dir.path().join("root/outside/x").is_dir());
    assert!(dir.path().join("root/outside/y/z").is_file());
    nothing_outside(&dir);
}

#[test]
fn symlinks_lead_to_places_inside() {
    let (dir, fd) = root();
    let inside = dir.path().join("root");
    symlink(dir.path().join("outside"), inside.join("absolute")).unwrap();
    symlink("../outside", inside.join("relative")).unwrap();
    symlink("../../../../outside/file", inside.join("file")).unwrap();
    mkdir_all(&fd, Path::new("/absolute/x"), Mode::from_raw_mode(0o755)).unwrap();
    mkdir_all(&fd, Path::new("/relative/x"), Mode::from_raw_mode(0o755)).unwrap();
    touch(&fd, Path::new("/relative/y")).unwrap();
    touch(&fd, Path::new("/file")).unwrap();
    nothing_outside(&dir);
    assert!(inside.join("outside/x").is_dir());
    assert!(inside.join("outside/file").is_file());
    assert!(inside.join(dir.path().strip_prefix("/").unwrap()).join("outside/x").is_dir());
}

#[test]
fn a_dangling_link_to_a_file_makes_the_way_to_it() {
    let (dir, fd) = root();
    fs::create_dir(dir.path().join("root/etc")).unwrap();
    symlink("../run/resolv/resolv.conf", dir.path().join("root/etc/resolv.conf")).unwrap();
    touch(&fd, Path::new("/etc/resolv.conf")).unwrap();
    assert!(dir.path().join("root/run/resolv/resolv.conf").is_file());
    nothing_outside(&dir);
}

#[test]
fn loops_and_files_in_the_way_are_errors() {
    let (dir, fd) = root();
    symlink("b", dir.path().join("root/a")).unwrap();
    symlink("a", dir.path().join("root/b")).unwrap();
    File::create(dir.path().join("root/plain")).unwrap();
    assert!(mkdir_all(&fd, Path::new("/a/x"), Mode::from_raw_mode(0o755)).is_err());
    assert!(mkdir_all(&fd, Path::new("/plain/x"), Mode::from_raw_mode(0o755)).is_err());
    assert!(touch(&fd, Path::new("/a")).is_err());
    assert!(touch(&fd, Path::new("/")).is_ok(), "the root exists");
}

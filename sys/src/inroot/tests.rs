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

#[test]
fn plain_paths_follow_no_link() {
    let (dir, fd) = root();
    let inside = dir.path().join("root");
    fs::create_dir(inside.join("real")).unwrap();
    symlink("real", inside.join("link")).unwrap();
    symlink("nowhere", inside.join("dangling")).unwrap();
    let mode = Mode::from_raw_mode(0o755);
    let is_loop = |result: io::Result<OwnedFd>| result.unwrap_err().raw_os_error() == Some(Errno::LOOP.raw_os_error());
    assert!(is_loop(mkdir_plain(&fd, Path::new("/link"), mode)));
    assert!(is_loop(mkdir_plain(&fd, Path::new("/link/new"), mode)));
    assert!(is_loop(touch_plain(&fd, Path::new("/link/file"))));
    assert!(is_loop(touch_plain(&fd, Path::new("/dangling"))));
    mkdir_plain(&fd, Path::new("/real/new/deep"), mode).unwrap();
    touch_plain(&fd, Path::new("/real/new/file")).unwrap();
    assert!(inside.join("real/new/deep").is_dir() && inside.join("real/new/file").is_file());
    touch_over_link(&fd, Path::new("/dangling")).unwrap();
    touch_over_link(&fd, Path::new("/link")).unwrap();
    assert!(inside.join("dangling").is_file() && inside.join("link").is_file() && inside.join("real").is_dir());
    touch_over_link(&fd, Path::new("/link")).unwrap();
}

/// Somebody else exchanges a directory for links that lead out, as fast as he can.
#[test]
fn exchanges_meanwhile_lead_nowhere() {
    const ROUNDS: usize = 6000;
    /// Enough on a machine where two threads have less than one processor.
    const ENOUGH: std::time::Duration = std::time::Duration::from_secs(8);
    let begin = std::time::Instant::now();
    let (dir, fd) = root();
    let inside = dir.path().join("root");
    let outside = dir.path().join("outside");
    fs::create_dir(inside.join("place")).unwrap();
    symlink(&outside, inside.join("absolute")).unwrap();
    symlink("../../../../outside", inside.join("climbing")).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    let exchanges = std::thread::scope(|scope| {
        let exchanger = scope.spawn(|| {
            let mut count = 0_usize;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let other = ["absolute", "climbing"][count % 2];
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&fd, "place", &fd, other, flags).unwrap();
                count += 1;
            }
            count
        });
        let mode = Mode::from_raw_mode(0o755);
        for round in 0..ROUNDS {
            // Any of them may fail; none may leave the root.
            let _ = mkdir_all(&fd, Path::new(&format!("/place/a{}/b", round % 64)), mode);
            let _ = touch(&fd, Path::new(&format!("/place/f{round}")));
            let _ = mkdir_plain(&fd, Path::new(&format!("/place/p{}", round % 64)), mode);
            let _ = touch_plain(&fd, Path::new(&format!("/place/g{round}")));
            let _ = parent(&fd, Path::new("/place/x/y"));
            if begin.elapsed() > ENOUGH {
                break;
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        exchanger.join().unwrap()
    });
    assert!(exchanges > 10, "{exchanges} exchanges are no race");
    nothing_outside(&dir);
}

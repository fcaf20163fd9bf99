use std::io::Write;

use super::{Follower, parse};

fn shown(follower: &mut Follower) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    follower.show(&mut out, &mut err).unwrap();
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn lines_go_where_they_came_from_and_parts_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut follower = Follower::new(path.clone(), false);
    assert_eq!(shown(&mut follower), (String::new(), String::new()));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(b"2026-01-01T00:00:00.1Z stdout P one \n2026-01-01T00:00:00.2Z stdout F line\n").unwrap();
    file.write_all(b"2026-01-01T00:00:00.3Z stderr F oops\n2026-01-01T00:00:00.4Z stdout F ha").unwrap();
    assert_eq!(shown(&mut follower), ("one line\n".into(), "oops\n".into()));
    file.write_all(b"lf\n2026-01-01T00:00:00.5Z stdout F \n").unwrap();
    assert_eq!(shown(&mut follower), ("half\n\n".into(), String::new()));
}

#[test]
fn a_rotated_log_is_followed_without_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    std::fs::write(&path, "t stdout F a\n").unwrap();
    let mut follower = Follower::new(path.clone(), true);
    assert_eq!(shown(&mut follower).0, "t a\n");
    let old = folder.path().join("0.log.1");
    std::fs::rename(&path, &old).unwrap();
    std::fs::OpenOptions::new().append(true).open(&old).unwrap().write_all(b"t stdout F b\n").unwrap();
    std::fs::write(&path, "t stdout F c\n").unwrap();
    assert_eq!(shown(&mut follower).0, "t b\nt c\n");
}

#[test]
fn what_is_no_log_line_is_told_apart() {
    assert!(parse(b"hello").is_none());
    assert!(parse(b"t stdlog F x").is_none());
    assert!(parse(b"t stdout X x").is_none());
    assert_eq!(parse(b"t stdout F:x a b\n").unwrap().3, b"a b");
}

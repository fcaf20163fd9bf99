use std::{fs, os::unix::fs::PermissionsExt, sync::mpsc::sync_channel};

use flate2::{Compression, write::GzEncoder};

use super::*;

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// What a blob inflates to, and what is left of it.
fn inflated(igzip: &Igzip, mut blob: &[u8]) -> (io::Result<Vec<u8>>, usize) {
    let (sink, source) = sync_channel(2);
    let (_back, used) = sync_channel(1);
    let reader = thread::spawn(move || source.into_iter().collect::<io::Result<Vec<_>>>().unwrap().concat());
    let result = igzip.inflate(igzip.start().unwrap(), &mut blob, &sink, &used);
    drop(sink);
    let text = reader.join().unwrap();
    (result.map(|()| text), blob.len())
}

fn installed() -> Igzip {
    Igzip::find().expect("igzip, which scripts/setup --tests installs")
}

/// Longer than both pipes together.
fn long() -> Vec<u8> {
    (0..5_000_000_u32).flat_map(|number| (number / 3).to_le_bytes()).collect()
}

#[test]
fn all_members_are_inflated() {
    let (first, second) = (long(), b"the end".to_vec());
    let blob = [packed(&first), packed(&second)].concat();
    let (text, left) = inflated(&installed(), &blob);
    assert!(text.unwrap() == [first, second].concat());
    assert_eq!(left, 0);
}

#[test]
fn what_is_cut_or_changed_is_told() {
    let blob = packed(&long());
    let mut changed = blob.clone();
    let checksum = changed.len() - 8;
    changed[checksum] ^= 1;
    for wrong in [&blob[..blob.len() - 9], &changed] {
        let error = inflated(&installed(), wrong).0.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("igzip failed"), "{error}");
    }
}

#[test]
fn it_ends_when_nobody_reads() {
    let igzip = installed();
    let (sink, source) = sync_channel(1);
    let (_back, used) = sync_channel(1);
    drop(source);
    let blob = packed(&long());
    let error = igzip.inflate(igzip.start().unwrap(), &mut blob.as_slice(), &sink, &used).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
}

/// In its place, a script.
fn acting(folder: &tempfile::TempDir, script: &str) -> Igzip {
    let program = folder.path().join("igzip");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Moved into place by another process: nobody in this one may have it open for writing when it is executed.
    let text = format!("#!/bin/sh\n{script}\n");
    let mut made = Command::new("sh");
    made.args(["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", &text]).arg(&program);
    assert!(made.status().unwrap().success());
    Igzip { program, patience: Duration::from_secs(1) }
}

#[test]
fn one_that_does_nothing_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let error = inflated(&acting(&folder, "sleep 1000"), &packed(&long())).0.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
}

#[test]
fn what_it_does_not_want_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (text, left) = inflated(&acting(&folder, "head -c 5"), &vec![b'x'; 20_000_000]);
    assert_eq!(text.unwrap(), b"xxxxx");
    assert!(left > 10_000_000, "{left}");
}

#[test]
fn it_is_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (text, _) = inflated(&acting(&folder, "cat >/dev/null; id -u; id -g; id -G"), b"x");
    assert_eq!(String::from_utf8(text.unwrap()).unwrap(), "65534\n65534\n65534\n");
}

#[test]
fn one_that_inflates_wrongly_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    assert!(acting(&folder, "cat >/dev/null; echo tripod").tried().is_err());
    assert!(acting(&folder, "cat >/dev/null; exit 1").tried().is_err());
    assert!(acting(&folder, "gzip -d -c").tried().is_ok());
}

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::{config::Limits, digest::Digest, unpack::unpack_recorded};

/// Unpacks an archive into a layer's folder, with its record.
fn unpacked(bytes: &[u8], folder: &Path) -> Digest {
    std::fs::create_dir(folder.join("fs")).unwrap();
    std::fs::create_dir(folder.join("discard")).unwrap();
    let stream = Tap::new(bytes, Recorder::new(folder).unwrap());
    let (_, stream) =
        unpack_recorded(stream, &folder.join("fs"), &folder.join("discard"), &Limits::default(), None).unwrap();
    stream.finish(folder).unwrap().unwrap();
    Digest::of(bytes)
}

fn restored(folder: &Path, digest: &Digest) -> Result<Vec<u8>, SkeletonError> {
    let (archive, mut bytes) = (Archive::open(folder)?, Vec::new());
    archive.write(digest, &mut bytes)?;
    assert_eq!(archive.size(), bytes.len() as u64);
    Ok(bytes)
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(1_600_000_000);
    header.set_size(size);
    header
}

fn append(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str, content: &[u8]) {
    let mut header = header(kind, content.len() as u64);
    match link {
        "" => tar.append_data(&mut header, path, content).unwrap(),
        link => tar.append_link(&mut header, path, link).unwrap(),
    }
}

/// One of everything that builders write.
fn everything() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let add = append;
    add(&mut tar, EntryType::Directory, "usr/", "", b"");
    add(&mut tar, EntryType::Directory, "usr/lib/", "", b"");
    add(&mut tar, EntryType::Symlink, "lib", "usr/lib", b"");
    add(&mut tar, EntryType::Regular, "lib/through-a-link", "", &[7; 1000]);
    add(&mut tar, EntryType::Regular, "empty", "", b"");
    add(&mut tar, EntryType::Regular, "block", "", &[1; 512]);
    add(&mut tar, EntryType::Regular, "large", "", &vec![2; 700_001]);
    add(&mut tar, EntryType::Link, "linked", "large", b"");
    add(&mut tar, EntryType::Regular, &format!("{}/long", "d".repeat(150)), "", b"long name");
    add(&mut tar, EntryType::Regular, "usr/.wh.gone", "", b"");
    // A whiteout has no file that its content could be in.
    add(&mut tar, EntryType::Regular, ".wh.odd", "", b"content where nobody looks");
    add(&mut tar, EntryType::Fifo, "fifo", "", b"");
    tar.append_pax_extensions([("SCHILY.xattr.user.a", &b"b"[..])]).unwrap();
    add(&mut tar, EntryType::Regular, "attributed", "", b"x");
    let mut sparse = header(EntryType::GNUSparse, 6);
    sparse.set_path("sparse").unwrap();
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 20);
    gnu.sparse[0].set_offset(4096);
    gnu.sparse[0].set_length(4);
    gnu.sparse[1].set_offset(8192);
    gnu.sparse[1].set_length(2);
    sparse.set_cksum();
    tar.append(&sparse, &b"holes!"[..]).unwrap();
    let mut bytes = tar.into_inner().unwrap();
    // Tape blocks, and what some builders leave behind the end.
    bytes.resize(bytes.len().next_multiple_of(10_240), 0);
    bytes.extend_from_slice(b"trailer");
    bytes
}

#[test]
fn an_archive_comes_back_byte_for_byte() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), everything());
    let digest = unpacked(&bytes, folder.path());
    assert!(restored(folder.path(), &digest).unwrap() == bytes);
    let record = std::fs::metadata(folder.path().join(SKELETON)).unwrap().len();
    assert!(record < 2000, "{record} bytes for {} of headers", bytes.len() - 702_000);
}

#[test]
fn what_was_changed_is_named() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), everything());
    let digest = unpacked(&bytes, folder.path());
    let fs = folder.path().join("fs");
    let named = |wanted: &str| match restored(folder.path(), &digest) {
        Err(SkeletonError::Changed { path } | SkeletonError::File { path, .. }) => assert_eq!(path, wanted),
        other => panic!("{other:?}"),
    };
    let replace = |path: &str, content: &[u8]| std::fs::write(fs.join(path), content).unwrap();
    replace("block", &[9; 512]);
    named("block");
    replace("block", &[1; 512]);
    assert!(restored(folder.path(), &digest).is_ok());
    replace("large", b"short");
    named("large");
    replace("large", &vec![2; 700_001]);
    std::fs::remove_file(fs.join("block")).unwrap();
    named("block");
    // Neither a way out nor something that blocks.
    std::os::unix::fs::symlink("/etc/hostname", fs.join("block")).unwrap();
    named("block");
    std::fs::remove_file(fs.join("block")).unwrap();
    std::fs::rename(fs.join("fifo"), fs.join("block")).unwrap();
    named("block");
    let other = Digest::of(b"other");
    std::fs::remove_file(fs.join("block")).unwrap();
    replace("block", &[1; 512]);
    assert!(matches!(restored(folder.path(), &other), Err(SkeletonError::Digest { got }) if got == digest));
}

#[test]
fn a_damaged_record_is_an_error() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), everything());
    let digest = unpacked(&bytes, folder.path());
    let path = folder.path().join(SKELETON);
    let good = std::fs::read(&path).unwrap();
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1 << (position % 8);
        std::fs::write(&path, bad).unwrap();
        // A bit that zstd does not use does no harm; anything else is found.
        match restored(folder.path(), &digest) {
            Ok(same) => assert!(same == bytes, "{position}"),
            Err(SkeletonError::Damaged { .. }) => {}
            Err(other) => panic!("{position}: {other:?}"),
        }
        std::fs::write(&path, &good[..position]).unwrap();
        assert!(matches!(restored(folder.path(), &digest), Err(SkeletonError::Damaged { .. })), "{position}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(restored(folder.path(), &digest), Err(SkeletonError::Absent)));
}

#[test]
fn a_name_that_comes_twice_is_found_out() {
    let (folder, mut tar) = (tempfile::tempdir().unwrap(), Builder::new(Vec::new()));
    append(&mut tar, EntryType::Regular, "a", "", b"first");
    append(&mut tar, EntryType::Regular, "a", "", b"other");
    let digest = unpacked(&tar.into_inner().unwrap(), folder.path());
    assert!(matches!(restored(folder.path(), &digest), Err(SkeletonError::Changed { path }) if path == "a"));
}

#[test]
fn a_record_that_cannot_be_written_fails_the_layer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let mut recorder = Recorder::new(folder.path()).unwrap();
    recorder.note(Err(io::ErrorKind::StorageFull.into()));
    let error = Tap::new(&b""[..], recorder).finish(folder.path()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever names and sizes there are, as long as no name comes twice.
    #[test]
    fn archives_come_back(sizes in prop::collection::vec(0_usize..70_000, 0..12), trailer in 0_usize..3000) {
        let (folder, mut tar) = (tempfile::tempdir().unwrap(), Builder::new(Vec::new()));
        for (index, size) in sizes.iter().enumerate() {
            let content: Vec<u8> = (0..*size).map(|byte| (byte % 251) as u8).collect();
            append(&mut tar, EntryType::Regular, &format!("d{}/f{index}", index % 3), "", &content);
        }
        let mut bytes = tar.into_inner().unwrap();
        bytes.resize(bytes.len() + trailer, 0xaa);
        let digest = unpacked(&bytes, folder.path());
        prop_assert!(restored(folder.path(), &digest).unwrap() == bytes);
    }
}

use std::{collections::BTreeMap, os::unix::fs::symlink};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mkdirat, mknodat, openat};

use super::*;

fn read_all(path: &Path) -> io::Result<Vec<Node>> {
    let mut reader = open(path)?;
    let mut nodes = Vec::new();
    while let Some(node) = reader.next()? {
        nodes.push(node);
    }
    Ok(nodes)
}

#[test]
fn a_tree_is_read_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let fs = folder.path().join("fs");
    std::fs::create_dir_all(fs.join("a/b")).unwrap();
    std::fs::write(fs.join("a/file"), "content").unwrap();
    std::fs::hard_link(fs.join("a/file"), fs.join("linked")).unwrap();
    // Sorts between `a` and `a/b` by its bytes, and after both by folders.
    std::fs::write(fs.join("a-b"), vec![7; 300_000]).unwrap();
    symlink("a/file", fs.join("link")).unwrap();
    mknodat(CWD, fs.join("hidden"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    mknodat(CWD, fs.join("pipe"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    lsetxattr(fs.join("a"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    let target = folder.path().join("files");
    let mut contents = Contents { attributes: true, ..Contents::default() };
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(fs.join("a-b")).unwrap());
    let mut pieces = ContentHash::default();
    vec![7; 300_000].chunks(1000).for_each(|piece| pieces.update(piece, false));
    contents.insert(inode, pieces.finish());
    write(&fs, &target, &contents, None).unwrap();
    let nodes = read_all(&target).unwrap();
    let names: Vec<&str> = nodes.iter().map(|node| std::str::from_utf8(&node.path).unwrap()).collect();
    assert_eq!(names, ["", "a", "a/b", "a/file", "a-b", "hidden", "link", "linked", "pipe"]);
    let by_name: BTreeMap<&str, &Node> = names.into_iter().zip(&nodes).collect();
    assert_eq!(by_name["a/file"].kind, Kind::File { size: 7, hash: ContentHash::of(b"content") });
    assert_eq!((by_name["a/file"].links, by_name["linked"].links, by_name["a-b"].links), (1, 1, 0));
    assert_eq!(by_name["a-b"].kind, Kind::File { size: 300_000, hash: ContentHash::of(&vec![7; 300_000]) });
    assert_eq!(by_name["link"].kind, Kind::Link(b"a/file".to_vec()));
    assert_eq!(by_name["hidden"].kind.name(), "whiteout");
    assert_eq!(by_name["a"].xattrs, [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]);
    // Read anew, without any hash that was taken before, it is the same.
    let again = folder.path().join("again");
    write(&fs, &again, &Contents::default(), None).unwrap();
    assert_eq!(read_all(&again).unwrap().len(), nodes.len());
}

#[test]
fn a_tree_deeper_than_a_path_is_walked() {
    let folder = tempfile::tempdir().unwrap();
    let fs = folder.path().join("fs");
    std::fs::create_dir(&fs).unwrap();
    let mut below: std::os::fd::OwnedFd = std::fs::File::open(&fs).unwrap().into();
    let name = "x".repeat(200);
    for _ in 0..60 {
        mkdirat(&below, &name, Mode::from(0o700)).unwrap();
        below = openat(&below, &name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let target = folder.path().join("files");
    write(&fs, &target, &Contents::default(), None).unwrap();
    let nodes = read_all(&target).unwrap();
    assert_eq!((nodes.len(), nodes[60].path.len()), (61, 60 * 201 - 1));
    let trash = crate::trash::Trash::new(folder.path().join("trash"));
    std::fs::create_dir(folder.path().join("trash")).unwrap();
    trash.take(&fs).unwrap();
    trash.empty().unwrap();
}

#[test]
fn a_damaged_record_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (fs, target) = (folder.path().join("fs"), folder.path().join("files"));
    std::fs::create_dir(&fs).unwrap();
    std::fs::write(fs.join("a"), "x").unwrap();
    write(&fs, &target, &Contents::default(), None).unwrap();
    let good = std::fs::read(&target).unwrap();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 4;
        std::fs::write(&target, &bad).unwrap();
        assert_eq!(read_all(&target).unwrap_err().kind(), io::ErrorKind::InvalidData, "{index}");
        std::fs::write(&target, &good[..index]).unwrap();
        assert!(read_all(&target).is_err(), "{index}");
    }
}

fn node() -> impl Strategy<Value = Node> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let kind = prop_oneof![
        Just(Kind::Folder),
        (any::<u64>(), any::<u128>()).prop_map(|(size, hash)| Kind::File { size, hash }),
        bytes().prop_map(Kind::Link),
        any::<u64>().prop_map(Kind::CharDevice),
        any::<u64>().prop_map(Kind::BlockDevice),
        Just(Kind::Fifo),
        Just(Kind::Socket),
    ];
    let xattrs = prop::collection::vec((bytes(), bytes()), 0..3);
    (bytes(), kind, any::<[u32; 4]>(), any::<i64>(), any::<u64>(), xattrs).prop_map(
        |(path, kind, [mode, uid, gid, nanos], seconds, links, xattrs)| Node {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime: (seconds, nanos),
            links,
            xattrs,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(nodes in prop::collection::vec(node(), 0..20)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.reopen().unwrap()).unwrap();
        for node in &nodes {
            writer.item(node).unwrap();
        }
        writer.finish().unwrap();
        prop_assert_eq!(read_all(file.path()).unwrap(), nodes);
    }
}

/// `cargo test -p tripod-image-service -- --ignored --nocapture what_a_record_costs`
#[test]
#[ignore = "measures, and proves nothing"]
fn what_a_record_costs() {
    let folder = tempfile::tempdir().unwrap();
    let fs = folder.path().join("fs");
    let mut contents = Contents::default();
    for number in 0..16_334 {
        let path = fs.join(format!("usr/share/d{}/f{number}", number / 20));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "x").unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        contents.insert(inode, u128::from(inode).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834));
    }
    let target = folder.path().join("files");
    for _ in 0..3 {
        let begin = std::time::Instant::now();
        write(&fs, &target, &contents, None).unwrap();
        let took = begin.elapsed();
        println!("16,334 files: {took:?}, {} bytes", std::fs::metadata(&target).unwrap().len());
    }
    let content = vec![7; 64 << 20];
    let begin = std::time::Instant::now();
    let mut hash = ContentHash::default();
    content.chunks(256 << 10).for_each(|piece| hash.update(piece, false));
    println!("64 MiB hashed: {:?} ({:x})", begin.elapsed(), hash.finish());
}

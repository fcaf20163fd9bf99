use std::path::Path;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;
use crate::config::Limits;

fn archive(entries: &[(EntryType, String, String)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, link) in entries {
        let content: &[u8] = if *kind == EntryType::Regular { b"evil" } else { b"" };
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| if entry.unwrap().file_name() == "root" { 0 } else { 1 }).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever an archive of these does, it does inside its folder.
    #[test]
    fn nothing_leaves_the_folder(entries in prop::collection::vec(
        (
            prop::sample::select(vec![EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Link]),
            "(\\.\\./|/|a/|b/|c/|\\./){0,4}(a|b|c|\\.\\.|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq)",
            prop::sample::select(vec!["a", "b/c", "..", "../..", "/", "/tmp", "../discard", ".", "c"]),
        ),
        1..12,
    )) {
        let outside = tempfile::tempdir().unwrap();
        let (root, discard) = (outside.path().join("x/y/root"), outside.path().join("x/y/discard"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&discard).unwrap();
        let entries: Vec<_> = entries.into_iter().map(|(kind, path, link)| (kind, path, link.to_owned())).collect();
        let bytes = archive(&entries);
        let before = std::fs::read_dir("/tmp").unwrap().filter(|entry| ["a", "b", "c"].iter().any(|name| entry.as_ref().unwrap().file_name() == *name)).count();
        let _ = unpack(&bytes[..], &root, &discard, &Limits::default());
        prop_assert_eq!(files(outside.path()), 1);
        prop_assert_eq!(files(&outside.path().join("x")), 1);
        // What was replaced is there, under numbers.
        prop_assert_eq!(files(&outside.path().join("x/y")), 1);
        let named = std::fs::read_dir(&discard).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_str().unwrap().parse::<u64>().is_err()
        });
        prop_assert_eq!(named.count(), 0);
        let after = std::fs::read_dir("/tmp").unwrap().filter(|entry| ["a", "b", "c"].iter().any(|name| entry.as_ref().unwrap().file_name() == *name)).count();
        prop_assert_eq!(before, after);
    }
}

#[test]
fn sparse_files_have_holes() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("s").unwrap();
    header.set_mode(0o644);
    header.set_size(5);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(10 << 20);
    gnu.sparse[0].set_offset(5 << 20);
    gnu.sparse[0].set_length(5);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(b"holey");
    bytes.resize(1024, 0);
    let folder = tempfile::tempdir().unwrap();
    let (root, discard) = (folder.path().join("root"), folder.path().join("discard"));
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(&discard).unwrap();
    unpack(&bytes[..], &root, &discard, &Limits::default()).unwrap();
    let content = std::fs::read(root.join("s")).unwrap();
    assert_eq!((content.len(), &content[5 << 20..(5 << 20) + 5]), (10 << 20, &b"holey"[..]));
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(root.join("s")).unwrap());
    assert!(blocks * 512 < 1 << 20, "{blocks}");
}

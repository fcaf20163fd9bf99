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

/// Unpacks entries of kind, path, link and mode below a folder of the test's own, which holds `victim` too.
fn below_victim(entries: &[(EntryType, &str, &str, u32)]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("root")).unwrap();
    std::fs::create_dir_all(folder.path().join("discard")).unwrap();
    std::fs::write(folder.path().join("victim"), "secret").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, link, mode) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(7);
        header.set_gid(7);
        header.set_size(0);
        header.set_path(path).unwrap();
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    let (root, discard) = (folder.path().join("root"), folder.path().join("discard"));
    let result = unpack(&bytes[..], &root, &discard, &Limits::default()).map(|(unpacked, _)| unpacked);
    (folder, result)
}

/// A folder is known by one name and replaced by a link through another: what the folder was to get must not go where
/// the link leads.
#[test]
fn attributes_of_a_replaced_folder_go_nowhere() {
    use std::os::unix::fs::MetadataExt;
    for target in ["../../victim", "/victim"] {
        let (folder, result) = below_victim(&[
            (EntryType::Directory, "usr/x/", "", 0o4777),
            (EntryType::Symlink, "lib", "usr", 0o777),
            (EntryType::Symlink, "lib/x", target, 0o777),
        ]);
        let victim = folder.path().join("victim").metadata().unwrap();
        assert_eq!((victim.mode() & 0o7777, victim.uid(), victim.gid()), (0o644, 0, 0));
        result.unwrap();
        assert!(folder.path().join("root/usr/x").is_symlink());
    }
}

#[test]
fn folders_are_known_by_their_real_names() {
    use std::os::unix::fs::MetadataExt;
    let (folder, result) = below_victim(&[
        (EntryType::Directory, "usr/", "", 0o700),
        (EntryType::Symlink, "lib", "usr", 0o777),
        (EntryType::Directory, "lib/x/", "", 0o2750),
        (EntryType::Regular, "lib/made/f", "", 0o644),
        // The link goes, the folder behind it stays as it was.
        (EntryType::Regular, "lib", "", 0o644),
    ]);
    assert_eq!(result.unwrap().implied, ["usr/made"]);
    let found = folder.path().join("root/usr/x").metadata().unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o2750, 7));
}

/// Each step of a path that goes through links may be short while the whole is not.
#[test]
fn links_do_not_make_paths_longer_than_paths_can_be() {
    let name = "n".repeat(90);
    let mut entries = vec![(EntryType::Directory, "d/".to_owned(), String::new(), 0o755)];
    let mut at = "d".to_owned();
    for step in 0..50 {
        let link = format!("l{step}");
        entries.push((EntryType::Regular, format!("{at}/{name}/f"), String::new(), 0o644));
        entries.push((EntryType::Symlink, link.clone(), format!("{at}/{name}"), 0o777));
        at = link;
    }
    let entries: Vec<_> =
        entries.iter().map(|(kind, path, link, mode)| (*kind, path.as_str(), link.as_str(), *mode)).collect();
    let (_folder, result) = below_victim(&entries);
    let error = result.unwrap_err();
    assert!(error.to_string().contains("longer than 3840 bytes") || error.to_string().contains("link"), "{error}");
}

#[test]
fn a_folder_without_an_entry_takes_the_place_of_a_whiteout() {
    let (folder, result) = below_victim(&[
        (EntryType::Regular, ".wh.b", "", 0o644),
        (EntryType::Regular, "b/c/new", "", 0o644),
        (EntryType::Regular, "d/e/new", "", 0o644),
        (EntryType::Regular, "d/.wh.e", "", 0o644),
    ]);
    // The folders below do not count for these two, and so they are not among those that only pass something on.
    assert_eq!(result.unwrap().implied, ["b/c", "d"]);
    for path in ["root/b", "root/d/e"] {
        let mut value = [0];
        rustix::fs::lgetxattr(folder.path().join(path), "trusted.overlay.opaque", &mut value[..]).unwrap();
        assert_eq!(value, *b"y");
        assert!(folder.path().join(path).is_dir());
    }
}

#[test]
fn what_lies_in_a_whiteout_is_refused() {
    let (_folder, result) = below_victim(&[(EntryType::Regular, "a/.wh.b/c", "", 0o644)]);
    assert!(result.unwrap_err().to_string().contains("lies in a whiteout"));
    let (_folder, result) =
        below_victim(&[(EntryType::Regular, ".wh.a", "", 0o644), (EntryType::Link, "b", "a", 0o644)]);
    assert!(result.unwrap_err().to_string().contains("does not have"));
}

/// As deep as a path can be, which must be no question of stack.
#[test]
fn depth_is_no_matter() {
    let path = "a/".repeat(1900) + "f";
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("path", path.as_bytes())]).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("short").unwrap();
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &[][..]).unwrap();
    let bytes = builder.into_inner().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (root, discard) = (folder.path().join("root"), folder.path().join("discard"));
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(&discard).unwrap();
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let deep = small.spawn(move || unpack(&bytes[..], &root, &discard, &Limits::default()).unwrap().0);
    let unpacked = deep.unwrap().join().unwrap();
    assert_eq!((unpacked.inodes, unpacked.implied.len()), (1901, 1900));
    // Others remove folders with a descriptor for each level.
    crate::trash::Trash::new(folder.path().to_owned()).empty().unwrap();
}

use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};

use super::merge::{Folder, Layers, Seen};
use crate::{
    containers::Lower,
    unpack::{Marks, RootAttributes},
};

const ROOT: RootAttributes = RootAttributes { mode: 0o755, uid: 0, gid: 0 };

/// Layers below a folder, the highest first: what ends with a slash is a folder, what begins with `!` a whiteout, what
/// begins with `=` an opaque folder. The second list is what is implied.
fn layers(folder: &std::path::Path, layers: &[(&[&str], &[&str])]) -> Lower {
    let mut lower = Lower { folders: Vec::new(), implied: Vec::new(), marks: Vec::new(), root: ROOT };
    for (index, (entries, implied)) in layers.iter().enumerate() {
        let root = folder.join(index.to_string());
        std::fs::create_dir(&root).unwrap();
        for entry in *entries {
            if let Some(name) = entry.strip_prefix('!') {
                mknodat(CWD, root.join(name), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
            } else if let Some(name) = entry.strip_prefix('=') {
                std::fs::create_dir_all(root.join(name)).unwrap();
                lsetxattr(root.join(name), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
            } else if entry.ends_with('/') {
                std::fs::create_dir_all(root.join(entry)).unwrap();
            } else {
                std::fs::write(root.join(entry), index.to_string()).unwrap();
            }
        }
        lower.folders.push(root);
        lower.implied.push(implied.iter().map(ToString::to_string).collect());
        lower.marks.push(Marks::default());
    }
    lower
}

/// Names in a folder, each with the layer that it is from, or those that it shows and the one whose attributes it has.
fn seen(lower: &Lower, path: &str, content: &[usize]) -> Vec<(String, Result<Folder, usize>)> {
    let layers = Layers::open(lower).unwrap();
    let (_, seen) = layers.list(path.as_bytes(), content).unwrap();
    let told = seen.into_iter().map(|(name, seen)| {
        let what = match seen {
            Seen::Folder(folder) => Ok(folder),
            Seen::File(place, _) => Err(content[place]),
        };
        (name.into_string().unwrap(), what)
    });
    told.collect()
}

fn folder(content: &[usize], attributes: usize) -> Result<Folder, usize> {
    Ok(Folder { content: content.to_vec(), attributes })
}

#[test]
fn higher_layers_win_and_take_away() {
    let dir = tempfile::tempdir().unwrap();
    let lower = layers(
        dir.path(),
        &[
            (&["file", "!gone", "both/", "=cut/", "ends/", "over"], &[]),
            (&["gone", "kept", "both/", "cut/", "!ends", "over/"], &[]),
            (&["file", "kept", "both", "cut/", "ends/", "gone"], &[]),
        ],
    );
    let wanted = [
        ("both", folder(&[0, 1], 0)),
        ("cut", folder(&[0], 0)),
        ("ends", folder(&[0], 0)),
        ("file", Err(0)),
        ("kept", Err(1)),
        ("over", Err(0)),
    ];
    assert_eq!(seen(&lower, "", &[0, 1, 2]), wanted.map(|(name, what)| (name.to_owned(), what)));
}

#[test]
fn implied_folders_have_the_attributes_of_the_first_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let lower = layers(
        dir.path(),
        &[
            (&["a/", "=b/", "c/", "d/"], &["a", "b", "c", "d"]),
            (&["a/", "d/"], &["a", "d"]),
            (&["a/", "b/", "c", "d/"], &["d"]),
        ],
    );
    let wanted =
        [("a", folder(&[0, 1, 2], 2)), ("b", folder(&[0], 2)), ("c", folder(&[0], 0)), ("d", folder(&[0, 1, 2], 0))];
    assert_eq!(seen(&lower, "", &[0, 1, 2]), wanted.map(|(name, what)| (name.to_owned(), what)));
}

#[test]
fn what_the_filesystem_could_not_hold_is_gone_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut lower = layers(dir.path(), &[(&["x/", "y/"], &["x"]), (&["file", "x/", "x/in", "y/"], &[])]);
    lower.marks[0] = Marks { whiteouts: vec!["file".into(), "x/in".into()], opaque: vec!["y".into()] };
    assert_eq!(seen(&lower, "", &[0, 1]), [("x".to_owned(), folder(&[0, 1], 1)), ("y".to_owned(), folder(&[0], 0))]);
    assert_eq!(seen(&lower, "x", &[0, 1]), []);
}

#[test]
fn links_stay_links_within_a_layer_and_holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let lower = layers(dir.path(), &[(&["a/"], &[]), (&["a/", "b"], &[])]);
    let [high, low] = [&lower.folders[0], &lower.folders[1]];
    std::fs::hard_link(low.join("b"), low.join("a/c")).unwrap();
    std::fs::hard_link(low.join("b"), high.join("apart")).unwrap();
    let sparse = std::fs::File::create(high.join("a/sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the midst", 4 << 20).unwrap();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    super::files::copy(&lower, &target, None).unwrap();
    let inode = |name: &str| std::fs::metadata(target.join(name)).unwrap().ino();
    assert_eq!(inode("b"), inode("a/c"));
    assert_ne!(inode("b"), inode("apart"), "no container may write to two files at once that an image has apart");
    let copy = std::fs::metadata(target.join("a/sparse")).unwrap();
    assert!(copy.len() == 8 << 20 && copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
    assert_eq!(std::fs::read(target.join("a/sparse")).unwrap(), std::fs::read(high.join("a/sparse")).unwrap());
}

//! Whatever tar writes and umoci unpacks: containers must see the same.
//!
//! What differs on purpose, and is left out here:
//! * extended attributes other than those of users, capabilities and ACLs: a layer must not set the host's labels or
//!   overlayfs's marks; and attributes with an empty value, which umoci drops;
//! * character devices 0:0, which overlayfs takes for whiteouts;
//! * times after the year 2262, which umoci cannot count, and those of folders that no entry names;
//! * hard links into lower layers, which no builder writes and which a store of separate layers cannot have;
//! * time and attributes of the root, which is a folder of the container's own.

use std::{
    collections::BTreeMap,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::Command,
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, lsetxattr, makedev, mknodat,
    utimensat,
};
use tar::EntryType;

use super::{
    compare::{of_ours, of_umoci},
    fixture::{Compression, Image, Layer, Tar},
    root::Root,
};

/// A file capability, version 2: the effective and permitted set of cap_net_raw.
pub const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// One of everything that a filesystem can have.
fn fill(folder: &Path) {
    let at = |name: &str| folder.join(name);
    let long = "l".repeat(120);
    std::fs::create_dir_all(at("dir/inner").join(&long).join(&long)).unwrap();
    for (name, mode) in [("plain", 0o644), ("suid", 0o4755), ("sgid", 0o2755), ("none", 0o000), ("all", 0o7777)] {
        std::fs::write(at(name), name).unwrap();
        chownat(CWD, at(name), Some(Uid::from_raw(1000)), Some(Gid::from_raw(70_000)), AtFlags::empty()).unwrap();
        std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::write(at("dir/inner").join(&long).join(&long).join("deep"), "deep").unwrap();
    std::fs::write(at("ünïcode \\ and\nline"), "odd").unwrap();
    std::fs::hard_link(at("plain"), at("dir/second")).unwrap();
    std::fs::hard_link(at("plain"), at("a-third")).unwrap();
    std::os::unix::fs::symlink("/absolute/and/away", at("link")).unwrap();
    std::os::unix::fs::symlink(long.repeat(2), at("long-link")).unwrap();
    std::fs::hard_link(at("link"), at("link-again")).unwrap();
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from(0o622), 0).unwrap();
    mknodat(CWD, at("char"), FileType::CharacterDevice, Mode::from(0o600), makedev(5, 300)).unwrap();
    mknodat(CWD, at("block"), FileType::BlockDevice, Mode::from(0o660), makedev(8, 17)).unwrap();
    // Holes in front, between and behind; more regions than an old header has room for; nothing but a hole.
    for (name, size, regions) in
        [("sparse", 40_u64 << 20, 1), ("sparse-many", 20 << 20, 30), ("sparse-empty", 1 << 20, 0)]
    {
        let file = std::fs::File::create(at(name)).unwrap();
        file.set_len(size).unwrap();
        for region in 0..regions {
            std::os::unix::fs::FileExt::write_all_at(&file, name.as_bytes(), (1 << 19) * (region + 1) + 77).unwrap();
        }
    }
    std::fs::set_permissions(at("dir"), PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::set_permissions(at("dir/inner"), PermissionsExt::from_mode(0o2750)).unwrap();
    for (name, attribute, value) in [
        ("plain", "user.text", &b"line\nand = more\0"[..]),
        ("dir", "user.folder", b"of a folder"),
        ("suid", "security.capability", &CAPABILITY),
    ] {
        lsetxattr(at(name), attribute, value, XattrFlags::empty()).unwrap();
    }
    let times = [("plain", 1_234_567_890, 123_456_789), ("none", -86_400, 0), ("all", -1, 999_999_999), ("sgid", 0, 0)];
    for (name, seconds, nanos) in times {
        set_time(&at(name), seconds, nanos);
    }
    // More than eleven octal digits can say, and nearly the last that umoci's 64-bit nanoseconds can.
    set_time(&at("fifo"), 8_589_934_592, 5);
    set_time(&at("char"), 9_223_372_000, 0);
    set_time(&at("link"), 77, 7);
    set_time(&at("dir/inner"), 1_000_000_000, 1);
    set_time(&at("dir"), 1_000_000_001, 2);
}

/// The same tree in each form that GNU tar writes: GNU's own and PAX, with all its ways to store holes.
#[tokio::test]
async fn all_forms_of_tar_give_the_same_as_umoci() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    fill(&tree);
    let (root, mut theirs) = (Root::new().await, BTreeMap::new());
    let forms: [(&str, &[&str]); 6] = [
        ("gnu", &["--format=gnu"]),
        ("gnu-sparse", &["--format=gnu", "--sparse"]),
        ("pax", &["--format=pax", "--xattrs", "--xattrs-include=*"]),
        ("sparse-0.0", &["--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs", "--xattrs-include=*"]),
        ("sparse-0.1", &["--format=pax", "--sparse", "--sparse-version=0.1", "--xattrs", "--xattrs-include=*"]),
        ("sparse-1.0", &["--format=pax", "--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"]),
    ];
    for (form, options) in forms {
        // There is no way to store a socket: tar says so, and leaves it out.
        let listener = UnixListener::bind(tree.join("socket")).unwrap();
        set_time(&tree, 1_111_111_111, 0);
        let packed = Command::new("tar").args(options).args(["-c", "--sort=name", "-C"]).arg(&tree).arg(".").output();
        let packed = packed.unwrap();
        assert!(packed.status.success(), "{form}: {}", String::from_utf8_lossy(&packed.stderr));
        assert!(String::from_utf8_lossy(&packed.stderr).contains("socket ignored"), "{form}");
        drop(listener);
        std::fs::remove_file(tree.join("socket")).unwrap();
        let image = Image::new(vec![Layer::new(&packed.stdout, Compression::Gzip)]);
        let mut ours = of_ours(&root, &image).await;
        // umoci does not know the oldest form of sparse files, so they are held against what it made of the whole ones.
        if form != "gnu-sparse" {
            theirs = of_umoci(&image);
        }
        // The time of the root is that of the container's own layer.
        ours.remove("/");
        theirs.remove("/");
        equal(&ours, &theirs, form);
        assert!(ours.len() >= 22, "{form}: {:?}", ours.keys());
        assert!(!ours.contains_key("/socket"));
        if form.contains("sparse") {
            let layer = root.path().join("layers").join(image.layers[0].diff_id.hex()).join("fs");
            for name in ["sparse", "sparse-many", "sparse-empty"] {
                let metadata = std::fs::metadata(layer.join(name)).unwrap();
                let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
                assert!(blocks * 512 < 1 << 20, "{form}: {name} has {blocks} blocks");
            }
        }
    }
}

fn equal(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>, what: &str) {
    let mut different = Vec::new();
    for path in ours.keys().chain(theirs.keys().filter(|path| !ours.contains_key(*path))) {
        if ours.get(path) != theirs.get(path) {
            different.push(format!("{path}\n  ours   {:?}\n  theirs {:?}", ours.get(path), theirs.get(path)));
        }
    }
    assert!(different.is_empty(), "{what}:\n{}", different.join("\n"));
}

/// What a random file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    File,
    Folder,
    Symlink,
    HardLink,
    Fifo,
    Device,
    Whiteout,
    Opaque,
}

#[derive(Clone, Debug)]
struct Random {
    path: Vec<&'static str>,
    what: What,
    mode: u32,
    owner: (u64, u64),
    time: (i64, u32),
    content: String,
    xattr: bool,
    /// Chooses the target of a link.
    choice: usize,
}

fn random() -> impl Strategy<Value = Random> {
    let what = prop_oneof![
        4 => Just(What::File), 4 => Just(What::Folder), 1 => Just(What::Symlink), 2 => Just(What::HardLink),
        1 => Just(What::Fifo), 1 => Just(What::Device), 4 => Just(What::Whiteout), 2 => Just(What::Opaque),
    ];
    let name = prop::sample::select(vec!["a", "b", "c", "d e", "..f", "ü"]);
    let path = prop::collection::vec(name, 1..4);
    let time = (-2_000_000_000_i64..9_000_000_000, 0..1_000_000_000_u32);
    let owner = (prop::sample::select(vec![0_u64, 7, 65_534, 4_000_000_000]), 0..5_000_000_u64);
    let twin = prop::option::weighted(0.3, prop::sample::select(vec!["one", "two"]));
    (path, what, 0..0o10000_u32, owner, time, "[a-z]{0,9}", any::<bool>(), twin, any::<usize>()).prop_map(
        |(path, what, mode, owner, time, content, xattr, twin, choice)| match twin {
            // Large enough to be shared, and the same in all layers of all images.
            Some(word) => {
                let (content, time) = (word.repeat(7_000), (1_600_000_000, 5));
                Random { path, what, mode: 0o644, owner: (0, 7), time, content, xattr: false, choice }
            }
            None => Random { path, what, mode, owner, time, content, xattr, choice },
        },
    )
}

/// A layer as a builder would write it over what is there: each path once, parents before what is in them and always
/// with an entry, links to files of the layer itself, and whiteouts of what is there alone. `merged` is what is there,
/// and whether each is a folder.
fn well_formed(wanted: &[Random], merged: &mut BTreeMap<Vec<&'static str>, bool>) -> Tar {
    let mut layer: BTreeMap<Vec<&'static str>, Random> = BTreeMap::new();
    let below = merged.clone();
    for random in wanted {
        let exists = below.contains_key(&random.path);
        let fits = match random.what {
            What::Whiteout => exists,
            What::Opaque => below.get(&random.path) == Some(&true),
            _ => true,
        };
        let parents: Vec<_> = (1..random.path.len()).map(|count| random.path[..count].to_vec()).collect();
        let is_folder = |random: &Random| matches!(random.what, What::Folder | What::Opaque);
        let parents_fit = parents.iter().all(|parent| layer.get(parent).is_none_or(is_folder));
        let children = layer.keys().any(|path| path.len() > random.path.len() && path.starts_with(&random.path));
        if !fits || !parents_fit || layer.contains_key(&random.path) || children && !is_folder(random) {
            continue;
        }
        // Something cannot be taken away from a folder that is new.
        let hidden = parents.iter().any(|parent| layer.get(parent).is_some_and(|parent| parent.what == What::Opaque));
        if matches!(random.what, What::Whiteout | What::Opaque) && hidden || random.what == What::Opaque && children {
            continue;
        }
        for parent in parents {
            let entry = Random { path: parent.clone(), what: What::Folder, ..random.clone() };
            layer.entry(parent).or_insert(entry);
        }
        layer.insert(random.path.clone(), random.clone());
    }
    let mut tar = Tar::new();
    let mut files: Vec<String> = Vec::new();
    for (path, random) in &layer {
        let (name, parent) = (path.join("/"), path[..path.len() - 1].join("/"));
        let slash = if parent.is_empty() { "" } else { "/" };
        let remove = |merged: &mut BTreeMap<Vec<&'static str>, bool>, itself: bool| {
            merged.retain(|other, _| !other.starts_with(path) || other == path && !itself);
        };
        let time = format!("{}.{:09}", random.time.0, random.time.1);
        let xattr = matches!(random.what, What::File | What::Folder | What::Opaque) && random.xattr;
        let mut records: Vec<(&str, &[u8])> = vec![("mtime", time.as_bytes()), ("path", name.as_bytes())];
        if xattr {
            records.push(("SCHILY.xattr.user.random", random.content.as_bytes()));
        }
        records.retain(|(_, value)| !value.is_empty());
        let entry = |tar: Tar, kind, link: &str, content: &str| {
            tar.pax(&records).entry(kind, "short", link, content.as_bytes(), random.mode, random.owner)
        };
        match random.what {
            What::Whiteout => {
                tar = tar.file(&format!("{parent}{slash}.wh.{}", path[path.len() - 1]), "");
                remove(merged, true);
                continue;
            }
            What::Folder | What::Opaque => {
                if merged.get(path) == Some(&false) {
                    remove(merged, true);
                }
                tar = entry(tar, EntryType::Directory, "", "");
                if random.what == What::Opaque {
                    tar = tar.file(&format!("{name}/.wh..wh..opq"), "");
                    remove(merged, false);
                }
                merged.insert(path.clone(), true);
                continue;
            }
            What::HardLink if !files.is_empty() => {
                tar = entry(tar, EntryType::Link, &files[random.choice % files.len()], "");
            }
            What::File | What::HardLink => tar = entry(tar, EntryType::Regular, "", &random.content),
            What::Symlink => {
                tar = entry(tar, EntryType::Symlink, ["a", "/b/c", "../../..", "nowhere"][random.choice % 4], "");
            }
            What::Fifo => tar = entry(tar, EntryType::Fifo, "", ""),
            What::Device => tar = tar.device(&name, (1, 3)),
        }
        if random.what != What::Device {
            files.push(name);
        }
        remove(merged, true);
        merged.insert(path.clone(), false);
    }
    tar
}

/// Layers with everything, one over the other, in any combination that makes sense.
#[test]
fn random_layers_give_the_same_as_umoci() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let root = runtime.block_on(Root::new());
    let layers = prop::collection::vec(prop::collection::vec(random(), 1..25), 2..5);
    // The same ones in every run; PROPTEST_CASES=400 makes more.
    let cases = std::env::var("PROPTEST_CASES").map_or(24, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&layers, |layers| {
        let mut merged = BTreeMap::new();
        let layers = layers.iter().map(|wanted| well_formed(wanted, &mut merged).gzip());
        let image = Image::new(layers.collect());
        let (mut ours, mut theirs) = (runtime.block_on(of_ours(&root, &image)), of_umoci(&image));
        ours.remove("/");
        theirs.remove("/");
        let paths: Vec<String> = merged.keys().map(|path| format!("/{}", path.join("/"))).collect();
        let found: Vec<&String> = ours.keys().collect();
        prop_assert_eq!(found, paths.iter().collect::<Vec<_>>());
        equal(&ours, &theirs, "random layers");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

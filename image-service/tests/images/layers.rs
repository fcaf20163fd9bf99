//! What is unpacked, held against `umoci unpack` (Debian's package umoci), and what is refused.

use std::os::unix::ffi::OsStrExt;

use rustix::fs::llistxattr;
use tar::EntryType;
use tripod_engine::{ContainerId, Kind, plugin::Provisioner};

use super::{
    compare::{of_ours, of_umoci, snapshot},
    fake::Fake,
    fixture::{Compression, Image, Layer, Tar},
    root::{Root, detached, visible},
};

fn lower() -> Layer {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("deep/{}/{}/file", "d".repeat(120), "e".repeat(120));
    let tar = Tar::new()
        .entry(EntryType::Directory, "./", "", b"", 0o751, (0, 5))
        .dir("etc/")
        .file("etc/a", "a")
        .file("/etc/absolute", "taken as relative")
        .file("etc/../etc/dots", "cleaned")
        .entry(EntryType::Regular, "bin/su", "", b"suid", 0o4755, (0, 0))
        .entry(EntryType::Regular, "bin/other", "", b"owned", 0o2750, (1000, 1001))
        .hard_link("bin/hard", "bin/su")
        .hard_link("etc/hard", "./etc/a")
        .symlink("link", "/etc/a")
        .symlink("bin/up", "../../../../outside")
        .entry(EntryType::Fifo, "fifo", "", b"", 0o622, (3, 4))
        .device("dev/null", (1, 3))
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("mtime", b"1500000000.123456789")])
        .entry(EntryType::Regular, "bin/ping", "", b"ping", 0o755, (0, 0))
        .pax(&[("SCHILY.xattr.user.test", b"line\nand = more"), ("path", "etc/ünï".as_bytes())])
        .entry(EntryType::Regular, "short", "", b"named by PAX", 0o600, (70_000, 70_000))
        .pax(&[("path", long.as_bytes())])
        .entry(EntryType::Regular, "short", "", b"long", 0o644, (0, 0))
        .file("twice", "first")
        .file("twice", "last wins")
        .dir("becomes-file/")
        .file("becomes-file/x", "x")
        .file("becomes-file", "file")
        .file("becomes-dir", "file")
        .dir("becomes-dir/")
        .file("becomes-dir/y", "y")
        .entry(EntryType::Directory, "setgid/", "", b"", 0o2775, (0, 50))
        .file("setgid/file", "not of group 50")
        .dir("setgid/folder/")
        .file("usr/lib/x", "x")
        .symlink("lib", "usr/lib")
        .file("gone", "x")
        .dir("hidden/")
        .file("hidden/old", "old")
        .dir("replaced/")
        .file("replaced/old", "old")
        .dir("cut/")
        .file("cut/a/b/c", "c");
    tar.gzip()
}

fn upper() -> Layer {
    let tar = Tar::new()
        .file(".wh.gone", "")
        .dir("hidden/")
        .file("hidden/new", "new")
        .file("hidden/.wh..wh..opq", "")
        .dir("cut/")
        .dir("cut/a/")
        .file("cut/a/.wh.b", "")
        .dir("etc/")
        .file("etc/a", "upper")
        .entry(EntryType::Regular, "empty", "", b"", 0o000, (0, 0));
    Layer::new(&tar.finish(), Compression::Zstd)
}

#[tokio::test]
async fn the_result_is_that_of_umoci() {
    // umoci knows no zstd, so that it gets the same layers as gzip.
    let (first, second) = (lower(), upper());
    let tar = zstd::decode_all(&second.blob[..]).unwrap();
    let image = Image::new(vec![first, Layer::new(&tar, Compression::Gzip)]);
    let root = Root::new().await;
    let (mut ours, mut theirs) = (of_ours(&root, &image).await, of_umoci(&image));
    // Folders that no entry names are made by each in its own way: only that they are there counts.
    for implied in ["/bin", "/dev", "/deep", "/usr", "/usr/lib", "/cut/a", "/cut"] {
        let (mine, other) = (ours.remove(implied).unwrap(), theirs.remove(implied).unwrap());
        assert!(mine.starts_with("folder 40755 0:0") && other.starts_with("folder"), "{implied}: {mine}, {other}");
    }
    ours.retain(|path, _| !path.starts_with("/deep/") || path.ends_with("/file"));
    theirs.retain(|path, _| !path.starts_with("/deep/") || path.ends_with("/file"));
    // The root's time is that of the writable layer.
    let strip = |text: String| text.split(" at ").next().unwrap().to_owned();
    let roots = (strip(ours.remove("/").unwrap()), strip(theirs.remove("/").unwrap()));
    assert_eq!(roots.0, roots.1);
    for (path, mine) in &ours {
        assert_eq!(Some(mine), theirs.get(path), "{path}");
    }
    assert_eq!(
        ours.len(),
        theirs.len(),
        "{:?}",
        theirs.keys().filter(|path| !ours.contains_key(*path)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn whiteouts_and_new_content_of_the_same_name_in_one_layer() {
    let base = Tar::new().file("a/old", "old").file("b/old", "old").file("c", "old").file("d/old", "old").gzip();
    let top = Tar::new()
        .dir("a/")
        .file("a/new", "new")
        .file(".wh.a", "")
        .file(".wh.b", "")
        .dir("b/")
        .file("b/new", "new")
        .file("c", "new")
        .file(".wh.c", "")
        .file(".wh..wh.plnk", "of AUFS")
        .gzip();
    let all = Tar::new().file(".wh..wh..opq", "").file("only", "this").gzip();
    let root = Root::new().await;
    let names = async |layers: Vec<Layer>| {
        let fake = Fake::with(&Image::new(layers), |_| None).await;
        let pulled = root.pull(&fake.name()).await.unwrap();
        let mount = detached(root.images.overlay().provision(&pulled.id, &ContainerId::random(), None).await.unwrap());
        snapshot(&visible(&mount)).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(
        names(vec![base.clone(), top.clone()]).await,
        ["/", "/a", "/a/new", "/b", "/b/new", "/c", "/d", "/d/old"]
    );
    assert_eq!(names(vec![base, top, all]).await, ["/", "/only"]);
}

#[tokio::test]
async fn hostile_entries_are_refused_and_nothing_is_left() {
    let long = "x".repeat(300);
    let attacks: Vec<(&str, Tar)> = vec![
        ("climbs out", Tar::new().file("../evil", "x")),
        ("climbs out", Tar::new().file("a/../../evil", "x")),
        ("symbolic link out", Tar::new().symlink("a", "/tmp").file("a/evil", "x")),
        ("symbolic link out", Tar::new().symlink("a", "../..").file("a/evil", "x")),
        ("symbolic link out", Tar::new().symlink("a", "b").symlink("b", "/").file("a/evil", "x")),
        ("leads nowhere", Tar::new().symlink("a", "missing").file("a/evil", "x")),
        ("no folder", Tar::new().file("a", "x").file("a/evil", "x")),
        ("climbs out", Tar::new().hard_link("a", "../../../etc/passwd")),
        ("does not have", Tar::new().hard_link("a", "/etc/passwd-that-is-not-here")),
        ("symbolic link out", Tar::new().symlink("e", "/etc").hard_link("a", "e/passwd")),
        ("leads to a folder", Tar::new().dir("d/").hard_link("a", "d")),
        ("leads to itself", Tar::new().file("a", "x").hard_link("a", "a")),
        ("whiteout of no name", Tar::new().file("a/.wh...", "")),
        ("whiteout of no name", Tar::new().file("a/.wh.", "")),
        ("climbs out", Tar::new().file("../.wh.etc", "")),
        ("replaces the layer's root", Tar::new().symlink("./", "/etc")),
        ("255 bytes", Tar::new().pax(&[("path", long.as_bytes())]).file("a", "x")),
        ("has a NUL", Tar::new().pax(&[("path", b"a\0b")]).file("a", "x")),
        ("owner", Tar::new().entry(EntryType::Regular, "a", "", b"", 0o644, (0xffff_ffff, 0))),
        ("type", Tar::new().entry(EntryType::new(b'V'), "a", "", b"", 0o644, (0, 0))),
    ];
    let root = Root::new().await;
    for (word, tar) in attacks {
        let image = Image::new(vec![tar.gzip()]);
        let fake = Fake::with(&image, |_| None).await;
        let error = root.pull(&fake.name()).await.unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
        assert_eq!(error.kind(), Kind::Internal);
        root.assert_no_leftovers();
        assert_eq!(std::fs::read_dir(root.path().join("layers")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn attributes_of_overlayfs_are_not_taken_from_layers() {
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc"), ("SCHILY.xattr.user.overlay.opaque", b"y")])
        .dir("d/")
        .file("d/f", "f");
    let (image, root) = (Image::new(vec![tar.gzip()]), Root::new().await);
    let fake = Fake::with(&image, |_| None).await;
    root.pull(&fake.name()).await.unwrap();
    let folder = root.path().join("layers").join(image.layers[0].diff_id.hex()).join("fs/d");
    let mut names = vec![0; 4096];
    let count = llistxattr(&folder, &mut names[..]).unwrap();
    assert!(!names[..count].windows(7).any(|window| window == b"overlay"), "{}", names[..count].escape_ascii());
    assert!(folder.as_os_str().as_bytes().ends_with(b"/d"));
}

#[tokio::test]
async fn limits_hold() {
    let bomb = Layer::new(&Tar::new().file("zero", &"\0".repeat(3 << 20)).finish(), Compression::Gzip);
    let many = (0..200).fold(Tar::new(), |tar, index| tar.file(&format!("f{index}"), "")).gzip();
    let root = Root::with(|config| {
        config.limits.layer_bytes = 2 << 20;
        config.limits.layer_entries = 100;
        config.limits.layers = 1;
    })
    .await;
    for (layers, word) in [
        (vec![bomb.clone()], "more than 2097152 bytes"),
        (vec![many.clone()], "more than 100 entries"),
        (vec![bomb, many], "2 layers; the limit is 1"),
    ] {
        let fake = Fake::with(&Image::new(layers), |_| None).await;
        let error = root.pull(&fake.name()).await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        root.assert_no_leftovers();
    }
}

//! Files that layers have in common: one file on disk, and nothing that a container could see of it but its links.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rustix::fs::{AtFlags, CWD, IFlags, Timestamps, XattrFlags, ioctl_getflags, ioctl_setflags, setxattr, utimensat};
use tar::EntryType;
use tripod_engine::{ContainerId, plugin::Provisioner};
use tripod_image_service::{CheckRequest, ImageService, PruneRequest};

use super::{
    check::{assert_sound, check},
    compare::{of_ours, of_umoci, snapshot},
    fake::Fake,
    fixture::{Compression, Image, Layer, Tar},
    root::{Root, config, detached, visible},
    store::settle,
};

/// Large enough to be shared, and not the same twice.
fn content(word: &str) -> String {
    (0..4000).map(|line| format!("{word} {line}\n")).collect()
}

/// Where a layer of an image lies.
fn fs(root: &Root, image: &Image, layer: usize) -> PathBuf {
    root.path().join("layers").join(image.layers[layer].diff_id.hex()).join("fs")
}

fn inode(path: impl AsRef<Path>) -> u64 {
    std::fs::symlink_metadata(path.as_ref())
        .unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
        .ino()
}

fn objects(root: &Root) -> Vec<PathBuf> {
    let below = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    below(root.path().join("objects")).flat_map(below).collect()
}

async fn pull(root: &Root, image: &Image) -> String {
    let fake = Fake::with(image, |_| None).await;
    root.pull(&fake.name()).await.unwrap().id
}

/// An archive with all folders that are needed here, as those that no entry names get the time of the moment.
fn archive() -> Tar {
    let folders =
        ["etc", "etc/cron.d", "opt", "opt/app", "opt/app/etc", "opt/c", "usr", "usr/bin", "usr/lib", "usr/share"];
    let more = ["usr/share/doc", "var", "var/lib"];
    folders.iter().chain(&more).fold(Tar::new(), |tar, folder| tar.dir(&format!("{folder}/")))
}

/// What containers of an image get must be what umoci makes of it; the time of the root is that of their own layer.
async fn assert_as_umoci(root: &Root, image: &Image) {
    let mut trees = [of_ours(root, image).await, of_umoci(image)];
    trees.iter_mut().for_each(|tree| drop(tree.remove("/")));
    assert_eq!(trees[0], trees[1]);
}

/// An image with these files and one of its own, so that its layer is another.
fn image(own: &str, files: &[(&str, &str)]) -> Image {
    let all = files.iter().fold(archive(), |tar, (path, content)| tar.file(path, content));
    Image::new(vec![all.file("own", own).gzip()])
}

/// Sets a file's time back to what it was.
fn set_back(path: &Path, before: &std::fs::Metadata) {
    let time = rustix::fs::Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() as _ };
    utimensat(CWD, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::empty()).unwrap();
}

#[tokio::test]
async fn what_is_equal_in_all_is_stored_once() {
    let root = Root::new().await;
    let (same, other) = (content("same"), content("twin"));
    assert_eq!(same.len(), other.len());
    let layer = |own: &str, differs: &str, mode: u32| {
        let tar = archive()
            .file("usr/lib/same", &same)
            .file("opt/content", differs)
            .entry(EntryType::Regular, "opt/mode", "", same.as_bytes(), mode, (0, 0))
            .file(&format!("opt/path-{own}"), &same)
            .entry(EntryType::Regular, "usr/bin/suid", "", same.as_bytes(), 0o4755, (0, 0))
            .file("etc/cron.d/job", &same)
            .file("opt/app/etc/settings", &same)
            .file("var/lib/data", &same)
            .file("usr/share/doc/packed.gz", &same)
            .file("usr/small", "small")
            .pax(&[("SCHILY.xattr.user.note", b"hello")])
            .file("usr/attribute", &same)
            .hard_link("usr/lib/link", "opt/mode");
        Image::new(vec![Layer::new(&tar.finish(), Compression::Gzip)])
    };
    let (first, second) = (layer("a", &same, 0o644), layer("b", &other, 0o755));
    let ids = [pull(&root, &first).await, pull(&root, &second).await];
    let at = |image: &Image, path: &str| inode(fs(&root, image, 0).join(path));
    assert_eq!(at(&first, "usr/lib/same"), at(&second, "usr/lib/same"));
    for path in [
        "opt/content",
        "opt/mode",
        "usr/bin/suid",
        "etc/cron.d/job",
        "opt/app/etc/settings",
        "var/lib/data",
        "usr/share/doc/packed.gz",
        "usr/small",
        "usr/attribute",
        "usr/lib/link",
    ] {
        assert_ne!(at(&first, path), at(&second, path), "{path}");
        let links = std::fs::symlink_metadata(fs(&root, &first, 0).join(path)).unwrap().nlink();
        let expected = if matches!(path, "opt/mode" | "usr/lib/link") { 2 } else { 1 };
        assert!(links == expected || path == "opt/content", "{path} has {links} links");
    }
    assert_ne!(at(&first, "opt/path-a"), at(&second, "opt/path-b"));
    let links = std::fs::metadata(fs(&root, &second, 0).join("usr/lib/same")).unwrap().nlink();
    assert_eq!(links, 3, "two layers and the object");
    assert_sound(&root.images).await;
    // In a store of its own, as the container there needs the image from then on.
    let seen = Root::new().await;
    pull(&seen, &first).await;
    assert_as_umoci(&seen, &second).await;
    assert_eq!(seen.images.disk_usage().await.unwrap().saved.count, 1);

    let size = (same.len() as u64).next_multiple_of(4096);
    let usage = root.images.disk_usage().await.unwrap();
    assert_eq!((usage.saved.count, usage.saved.bytes), (1, size));
    let whole: u64 = usage.images.iter().map(|image| image.bytes).sum();
    assert_eq!(usage.layers.bytes, whole - size);
    let space = root.images.fs_info().await.unwrap().images;
    assert_eq!(space.used_bytes, usage.layers.bytes + usage.blobs.bytes);
    // What both have stays with the one that stays.
    assert_eq!(usage.unused_bytes, usage.layers.bytes + usage.blobs.bytes);
    let one = root.images.disk_usage().await.unwrap().images.iter().find(|image| image.id == ids[0]).unwrap().bytes;
    root.images.remove(&ids[0]).await.unwrap().unwrap();
    settle(async || !fs(&root, &first, 0).exists()).await;
    settle(async || root.images.disk_usage().await.unwrap().saved.bytes == 0).await;
    assert_eq!(std::fs::read_to_string(fs(&root, &second, 0).join("usr/lib/same")).unwrap(), same);
    assert_eq!(root.images.disk_usage().await.unwrap().layers.bytes, whole - one);
    // A third has it of the second.
    let third = image("c", &[("usr/lib/same", &same)]);
    pull(&root, &third).await;
    assert_eq!(at(&third, "usr/lib/same"), at(&second, "usr/lib/same"));
    let all = PruneRequest { all: true, ..PruneRequest::default() };
    let told = root.images.prune(PruneRequest { dry_run: true, ..all.clone() }).await.unwrap();
    let before = root.images.disk_usage().await.unwrap();
    let pruned = root.images.prune(all).await.unwrap();
    assert_eq!((told.bytes, pruned.bytes), (before.unused_bytes, before.unused_bytes));
    assert_eq!(pruned.bytes, before.layers.bytes + before.blobs.bytes);
    settle(async || objects(&root).is_empty()).await;
}

#[tokio::test]
async fn nothing_is_shared_where_that_is_switched_off() {
    let root = Root::with(|config| config.deduplicate = false).await;
    let same = content("same");
    let (first, second) = (image("a", &[("opt/same", &same)]), image("b", &[("opt/same", &same)]));
    for image in [&first, &second] {
        pull(&root, image).await;
        assert_eq!(std::fs::metadata(fs(&root, image, 0).join("opt/same")).unwrap().nlink(), 1);
    }
    assert!(objects(&root).is_empty());
    assert_eq!(root.images.disk_usage().await.unwrap().saved.bytes, 0);
}

/// Overlayfs gives a file that a container has written the number of the lower file as long as that has one link: it
/// must not change when another image comes.
#[tokio::test]
async fn a_running_container_keeps_its_inode_numbers() {
    let root = Root::new().await;
    let same = content("same");
    let (first, second) = (image("a", &[("opt/same", &same)]), image("b", &[("opt/same", &same)]));
    let id = pull(&root, &first).await;
    let (overlay, container) = (root.images.overlay(), ContainerId::random());
    let mount = detached(overlay.provision(&id, &container, None).await.unwrap());
    let seen = visible(&mount).join("opt/same");
    std::fs::OpenOptions::new().append(true).open(&seen).unwrap().write_all(b"more").unwrap();
    let before = inode(&seen);
    pull(&root, &second).await;
    assert_eq!(inode(fs(&root, &first, 0).join("opt/same")), inode(fs(&root, &second, 0).join("opt/same")));
    assert_eq!(inode(&seen), before);
    assert_eq!(std::fs::read_to_string(&seen).unwrap(), format!("{same}more"));
    assert_eq!(std::fs::read_to_string(fs(&root, &second, 0).join("opt/same")).unwrap(), same);
    // The links go, and come again.
    root.images.remove(&second.id()).await.unwrap().unwrap();
    settle(async || !fs(&root, &second, 0).exists()).await;
    pull(&root, &image("c", &[("opt/same", &same)])).await;
    assert_eq!(inode(&seen), before);
    drop(mount);
    overlay.destroy(&container).await.unwrap();
}

#[tokio::test]
async fn what_the_host_has_changed_does_not_spread() {
    let root = Root::new().await;
    let (same, wrong) = (content("same"), content("evil"));
    let files: Vec<(&str, &str)> =
        ["opt/content", "opt/mode", "opt/note", "opt/later"].map(|path| (path, &*same)).into();
    let (first, second) = (image("a", &files), image("b", &files));
    let (one, two) = (Fake::with(&first, |_| None).await, Fake::with(&second, |_| None).await);
    root.pull(&one.name()).await.unwrap();
    let (ours, theirs) = (fs(&root, &first, 0), fs(&root, &second, 0));
    let changed = ours.join("opt/content");
    let before = std::fs::metadata(&changed).unwrap();
    std::fs::write(&changed, &wrong).unwrap();
    set_back(&changed, &before);
    std::fs::set_permissions(ours.join("opt/mode"), PermissionsExt::from_mode(0o600)).unwrap();
    setxattr(ours.join("opt/note"), "user.note", b"x", XattrFlags::empty()).unwrap();
    root.pull(&two.name()).await.unwrap();
    for (path, _) in &files {
        assert_eq!(std::fs::read_to_string(theirs.join(path)).unwrap(), same, "{path}");
        let shared = inode(ours.join(path)) == inode(theirs.join(path));
        assert_eq!(shared, *path == "opt/later", "{path}");
    }
    let broken = |summary: &tripod_image_service::CheckSummary| (summary.broken, summary.repaired);
    let (events, summary) = check(&root.images, CheckRequest::default()).await;
    assert_eq!(broken(&summary), (1, 0), "{events:?}");
    // One that both have is wrong in both, and repaired in both.
    let later = ours.join("opt/later");
    let before = std::fs::metadata(&later).unwrap();
    std::fs::write(&later, &wrong).unwrap();
    set_back(&later, &before);
    let (events, summary) = check(&root.images, CheckRequest { repair: true, ..CheckRequest::default() }).await;
    assert_eq!(broken(&summary), (2, 2), "{events:?}");
    assert_sound(&root.images).await;
    for path in [&later, &theirs.join("opt/later")] {
        assert_eq!(std::fs::read_to_string(path).unwrap(), same);
        assert_ne!(inode(path), before.ino());
    }
}

/// A name that is a link in one layer and a file of its own in another: what an image does not link is never one file.
#[tokio::test]
async fn links_of_one_layer_are_none_of_another() {
    let root = Root::new().await;
    let same = content("same");
    let base = image("base", &[("opt/a", &same), ("opt/b", &same)]);
    pull(&root, &base).await;
    let linked = archive().file("opt/a", &same).hard_link("opt/b", "opt/a").hard_link("opt/c", "opt/a").gzip();
    let apart = archive().file("opt/b", &same).file("own", "x").gzip();
    for layers in [vec![linked.clone()], vec![linked.clone(), apart.clone()], vec![apart, linked]] {
        let image = Image::new(layers);
        assert_as_umoci(&root, &image).await;
    }
    assert_sound(&root.images).await;
}

#[tokio::test]
async fn a_file_that_takes_no_link_is_written() {
    let root = Root::new().await;
    let same = content("same");
    let (first, second) = (image("a", &[("opt/same", &same)]), image("b", &[("opt/same", &same)]));
    pull(&root, &first).await;
    let file = std::fs::File::open(fs(&root, &first, 0).join("opt/same")).unwrap();
    let flags = ioctl_getflags(&file).unwrap();
    ioctl_setflags(&file, flags | IFlags::IMMUTABLE).unwrap();
    let pulled = root.pull(&Fake::with(&second, |_| None).await.name()).await;
    ioctl_setflags(&file, flags).unwrap();
    pulled.unwrap();
    assert_as_umoci(&root, &second).await;
    assert_ne!(inode(fs(&root, &first, 0).join("opt/same")), inode(fs(&root, &second, 0).join("opt/same")));
    assert_sound(&root.images).await;
}

#[tokio::test]
async fn a_layer_that_is_not_trusted_takes_none_along() {
    let root = Root::new().await;
    let same = content("same");
    let (first, second) = (image("a", &[("opt/same", &same)]), image("b", &[("opt/same", &same)]));
    for image in [&first, &second] {
        pull(&root, image).await;
    }
    let (lost, kept) = (fs(&root, &first, 0), fs(&root, &second, 0));
    let record = lost.parent().unwrap().join("layer.json");
    let synced = async || !std::fs::read_to_string(kept.with_file_name("layer.json")).unwrap().contains("unsynced");
    settle(synced).await;
    settle(async || !std::fs::read_to_string(&record).unwrap().contains("unsynced")).await;
    let Root { folder, images } = root;
    drop(images);
    // As a power failure would leave it.
    let mut layer: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    layer["unsynced_since_boot"] = "another".into();
    std::fs::write(&record, layer.to_string()).unwrap();
    let images = reopened(&folder).await;
    let root = Root { folder, images };
    assert_eq!(root.images.list().len(), 1);
    settle(async || root.images.disk_usage().await.unwrap().temporary.count == 0).await;
    assert!(!lost.exists());
    assert_eq!(std::fs::read_to_string(kept.join("opt/same")).unwrap(), same);
    assert_sound(&root.images).await;
}

/// Opens a store again as soon as its last user is gone.
async fn reopened(folder: &super::root::Folder) -> ImageService {
    for _ in 0..600 {
        match ImageService::open(config(folder.path(), |_| {})).await {
            Ok(images) => return images,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
    panic!("the store stays in use for half a minute");
}

#[tokio::test]
async fn pulls_beside_each_other_share() {
    let root = Root::new().await;
    let contents: Vec<String> = (0..20).map(|number| content(&format!("file{number}"))).collect();
    let paths: Vec<String> = (0..20).map(|number| format!("opt/{number}")).collect();
    let files: Vec<(&str, &str)> = paths.iter().map(String::as_str).zip(contents.iter().map(String::as_str)).collect();
    let images: Vec<Image> = (0..8).map(|number| image(&format!("{number}"), &files)).collect();
    futures::future::join_all(images.iter().map(|image| pull(&root, image))).await;
    assert_sound(&root.images).await;
    // Whoever comes later finds whatever came of that.
    let last = image("last", &files);
    pull(&root, &last).await;
    for (path, content) in &files {
        assert_eq!(std::fs::read_to_string(fs(&root, &last, 0).join(path)).unwrap(), *content);
        assert!(std::fs::metadata(fs(&root, &last, 0).join(path)).unwrap().nlink() >= 3, "{path}");
    }
    root.images.prune(PruneRequest { all: true, ..PruneRequest::default() }).await.unwrap();
    settle(async || objects(&root).is_empty()).await;
}

#[derive(Clone, Debug)]
struct Entry {
    path: &'static str,
    content: &'static str,
    mode: u32,
    owner: u64,
    nanos: u32,
    link: bool,
}

fn entry() -> impl Strategy<Value = Entry> {
    let path = prop::sample::select(vec!["opt/a", "opt/b", "opt/c/d", "usr/e", "etc/f"]);
    let content = prop::sample::select(vec!["first", "other", "small"]);
    let mode = prop::sample::select(vec![0o644, 0o644, 0o755, 0o4755]);
    let owner = prop::sample::select(vec![0, 0, 0, 33]);
    (path, content, mode, owner, prop::sample::select(vec![0, 0, 0, 5]), prop::bool::weighted(0.2))
        .prop_map(|(path, content, mode, owner, nanos, link)| Entry { path, content, mode, owner, nanos, link })
}

/// As it stands in an archive: names may come twice, and links lead to what came before.
fn packed(entries: &[Entry]) -> Layer {
    let mut there: BTreeMap<&str, ()> = BTreeMap::new();
    let mut tar = archive();
    for entry in entries {
        let target = there.keys().find(|path| **path != entry.path).copied();
        let text = if entry.content == "small" { "small".to_owned() } else { content(entry.content) };
        let time = format!("1600000000.{:09}", entry.nanos);
        tar = match target.filter(|_| entry.link) {
            Some(target) => tar.hard_link(entry.path, target),
            None => {
                let file = (EntryType::Regular, (entry.owner, entry.owner));
                let tar = tar.pax(&[("mtime", time.as_bytes())]);
                tar.entry(file.0, entry.path, "", text.as_bytes(), entry.mode, file.1)
            }
        };
        there.insert(entry.path, ());
    }
    tar.gzip()
}

/// With sharing and without it, containers see the same, but for the numbers of links.
#[test]
fn random_layers_that_share_files_look_the_same() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (with, without) =
        runtime.block_on(async { (Root::new().await, Root::with(|config| config.deduplicate = false).await) });
    let layers = prop::collection::vec(prop::collection::vec(entry(), 1..8), 1..4);
    let cases = std::env::var("PROPTEST_CASES").map_or(24, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&layers, |layers| {
        let image = Image::new(layers.iter().map(|entries| packed(entries)).collect());
        let mut trees = [&with, &without].map(|root| runtime.block_on(of_ours(root, &image)));
        // The time of the root is that of the container's own layer.
        trees.iter_mut().for_each(|tree| drop(tree.remove("/")));
        prop_assert_eq!(&trees[0], &trees[1]);
        for layer in 0..image.layers.len() {
            let mut trees = [&with, &without].map(|root| snapshot(&fs(root, &image, layer)));
            trees.iter_mut().for_each(|tree| drop(tree.remove("/")));
            prop_assert_eq!(&trees[0], &trees[1]);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let (saved, none) = runtime.block_on(async {
        assert_sound(&with.images).await;
        (with.images.disk_usage().await.unwrap().saved, without.images.disk_usage().await.unwrap().saved)
    });
    assert!(saved.count > 10 && none.count == 0, "{saved:?}, {none:?}");
}

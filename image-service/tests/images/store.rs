//! From a registry to a root filesystem, and names in between.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::mount::{MountFlags, UnmountFlags};
use tripod_engine::{
    ContainerId, Kind,
    plugin::{Known, Provisioner},
};
use tripod_image_service::{Digest, ImageService, LayerState, PullProgress, PullRequest};

use super::{
    fixture::{Compression, Image, Layer, Tar},
    registry::Registry,
    root::{Root, config, detached, visible},
};

#[tokio::test]
async fn an_image_becomes_a_root_filesystem() {
    let (registry, root) = (Registry::start().await, Root::new().await);
    let layers = vec![
        Layer::new(
            &Tar::new().dir("etc/").file("etc/a", "lower").file("etc/b", "b").file("gone", "x").finish(),
            Compression::Plain,
        ),
        Layer::new(&Tar::new().file("etc/a", "upper").file(".wh.gone", "").finish(), Compression::Zstd),
        Layer::new(&Tar::new().file("bin/c", &"c".repeat(5000)).finish(), Compression::GzipMembers),
    ];
    let image = Image::new(layers);
    let index = image.push_index(&registry.address, "test/first", "v1").await;
    let name = format!("{}/test/first", registry.address);
    let pulled = root.pull(&format!("{name}:v1")).await.unwrap();
    assert_eq!(pulled.id, image.id());
    assert_eq!(pulled.repo_tags, [format!("{name}:v1")]);
    assert_eq!(pulled.repo_digests, [format!("{name}@{index}")]);
    assert_eq!(pulled.config.cmd, ["/bin/sh"]);
    assert_eq!(pulled.size, 5 + 1 + 1 + 5 + 5000);
    assert_eq!(root.images.list(), std::slice::from_ref(&pulled));
    for spec in [&pulled.id, &pulled.id[7..], &pulled.id[7..20], &format!("{name}:v1"), &format!("{name}@{index}")] {
        assert_eq!(root.images.get(spec).as_ref(), Some(&pulled), "{spec}");
    }
    let (overlay, container) = (root.images.overlay(), ContainerId::random());
    let mount = detached(overlay.provision(&pulled.id, &container, None).await.unwrap());
    let top = visible(&mount);
    assert_eq!(std::fs::read_to_string(top.join("etc/a")).unwrap(), "upper");
    assert_eq!(std::fs::read_to_string(top.join("etc/b")).unwrap(), "b");
    assert!(!top.join("gone").exists());
    assert_eq!(std::fs::metadata(&top).unwrap().mode() & 0o7777, 0o755);
    std::fs::write(top.join("etc/new"), "new").unwrap();
    // After a restart of the daemon the writable layer is kept.
    drop(mount);
    let mount = detached(overlay.provision(&pulled.id, &container, None).await.unwrap());
    assert_eq!(std::fs::read_to_string(visible(&mount).join("etc/new")).unwrap(), "new");
    assert!(overlay.usage(&container, Duration::ZERO).await.unwrap().inodes >= 3);
    drop(mount);
    overlay.destroy(&container).await.unwrap();
    overlay.destroy(&container).await.unwrap();
    assert_eq!(count(&root.path().join("containers")), 0);
}

pub async fn settle(what: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if what().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not happen within a minute");
}

fn layer(content: &str) -> Layer {
    Tar::new().file(&format!("file-{content}"), content).gzip()
}

#[tokio::test]
async fn names_follow_what_registries_say() {
    let (first, second) =
        (Image::new(vec![layer("common"), layer("1")]), Image::new(vec![layer("common"), layer("2")]));
    let (one, two, root) = (Registry::start().await, Registry::start().await, Root::new().await);
    first.push(&one.address, "a/b", "v1").await;
    first.push(&two.address, "c", "v9").await;
    let (name, other) = (format!("{}/a/b", one.address), format!("{}/c", two.address));
    root.pull(&format!("{name}:v1")).await.unwrap();
    // The same content from another registry is the same image.
    let pulled = root.pull(&format!("{other}:v9")).await.unwrap();
    let sorted = |mut names: [String; 2]| {
        names.sort();
        names
    };
    assert_eq!(pulled.repo_tags, sorted([format!("{name}:v1"), format!("{other}:v9")]));
    let digest = first.digest();
    assert_eq!(pulled.repo_digests, sorted([format!("{name}@{digest}"), format!("{other}@{digest}")]));
    // A tag that moves leaves the old image without it.
    second.push(&one.address, "a/b", "v1").await;
    let moved = root.pull(&format!("{name}:v1")).await.unwrap();
    assert_eq!((&moved.id, &moved.repo_tags), (&second.id(), &vec![format!("{name}:v1")]));
    let old = root.images.get(&first.id()).unwrap();
    assert_eq!(old.repo_tags, [format!("{other}:v9")]);
    assert_eq!(old.repo_digests.len(), 2);
    // By digest there is no tag, with or without one in the name.
    for name in [format!("{name}@{}", first.digest()), format!("{name}:v1@{}", first.digest())] {
        let pulled = root.pull(&name).await.unwrap();
        assert_eq!((pulled.id, pulled.repo_tags.len()), (first.id(), 1));
        assert!(root.images.get(&name).is_some());
    }
    let missing = root.pull(&format!("{name}@{}", Digest::of(b"nothing has this"))).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    // A name goes, the image stays while another tag is there, and goes with the last one.
    let removed = root.images.remove(&format!("{other}:v9")).await.unwrap().unwrap();
    assert_eq!(removed.id, first.id());
    assert!(removed.deleted, "no tag is left");
    assert!(root.images.get(&first.id()).is_none());
    assert_eq!(root.images.remove(&first.id()).await.unwrap(), None);
    assert_eq!(root.images.remove("never-heard-of").await.unwrap(), None);
    settle(async || !root.path().join("layers").join(first.layers[1].diff_id.hex()).exists()).await;
    assert!(root.path().join("layers").join(first.layers[0].diff_id.hex()).exists(), "the other image has it too");
    assert!(root.images.remove(&second.id()[7..20]).await.unwrap().unwrap().deleted);
    settle(async || ["layers", "trash", "content/blobs/sha256"].iter().all(|name| count(&root.path().join(name)) == 0))
        .await;
    root.pull(&format!("{name}:v1")).await.unwrap();
}

#[tokio::test]
async fn one_of_two_tags_can_go() {
    let (image, registry, root) = (Image::new(vec![layer("1")]), Registry::start().await, Root::new().await);
    let name = format!("{}/x", registry.address);
    for tag in ["a", "b"] {
        image.push(&registry.address, "x", tag).await;
        root.pull(&format!("{name}:{tag}")).await.unwrap();
    }
    let removed = root.images.remove(&format!("{name}:a")).await.unwrap().unwrap();
    assert!(!removed.deleted && removed.untagged == [format!("{name}:a")]);
    assert_eq!(root.images.get(&image.id()).unwrap().repo_tags, [format!("{name}:b")]);
    let removed = root.images.remove(&format!("{name}:b")).await.unwrap().unwrap();
    assert!(removed.deleted && removed.untagged.len() == 2);
}

#[tokio::test]
async fn a_container_keeps_its_layers_when_the_image_goes() {
    let (image, registry, root) = (Image::new(vec![layer("1")]), Registry::start().await, Root::new().await);
    image.push(&registry.address, "x", "v1").await;
    let pulled = root.pull(&format!("{}/x:v1", registry.address)).await.unwrap();
    let (overlay, container) = (root.images.overlay(), ContainerId::random());
    drop(overlay.provision(&pulled.id, &container, None).await.unwrap());
    root.images.remove(&pulled.id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let folder = root.path().join("layers").join(image.layers[0].diff_id.hex());
    assert!(folder.exists());
    // Pulled again, nothing is fetched; destroyed and removed, all is gone.
    let request =
        |progress| PullRequest { reference: format!("{}/x:v1", registry.address), progress, ..PullRequest::default() };
    let (sender, receiver) = tokio::sync::watch::channel(PullProgress::default());
    root.images.pull(request(Some(sender))).await.unwrap();
    let shown = receiver.borrow().clone();
    assert!(shown.layers[0].present && shown.layers[0].state == LayerState::Done, "{shown:?}");
    root.images.remove(&pulled.id).await.unwrap();
    overlay.destroy(&container).await.unwrap();
    settle(async || !folder.exists()).await;
}

#[tokio::test]
async fn a_restart_changes_nothing_and_clears_up() {
    let (image, registry, root) =
        (Image::new(vec![layer("1"), layer("2")]), Registry::start().await, Root::new().await);
    image.push(&registry.address, "x", "v1").await;
    let name = format!("{}/x:v1", registry.address);
    let pulled = root.pull(&name).await.unwrap();
    let (container, unknown) = (ContainerId::random(), ContainerId::random());
    for id in [&container, &unknown] {
        drop(root.images.overlay().provision(&pulled.id, id, None).await.unwrap());
    }
    let (path, folder) = (root.path(), root.folder);
    drop(root.images);
    std::fs::create_dir_all(path.join("staging/left/fs/a")).unwrap();
    std::fs::write(path.join("trash/old"), "x").unwrap();
    std::fs::create_dir_all(path.join("layers/0123/fs")).unwrap();
    let images = reopen(folder.path()).await;
    assert_eq!(images.list(), std::slice::from_ref(&pulled));
    let overlay = images.overlay();
    let known = Known { containers: [container.clone()].into(), ..Known::default() };
    overlay.recover(&known).await.unwrap();
    assert_eq!(names(&path.join("containers")), [container.to_string()]);
    settle(async || count(&path.join("staging")) + count(&path.join("trash")) == 0).await;
    assert_eq!(count(&path.join("layers")), 2);
    // Removed while it was in use, and collected after the next start.
    images.remove(&pulled.id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(count(&path.join("layers")), 2);
    drop((images, overlay));
    let images = reopen(folder.path()).await;
    images.overlay().recover(&Known::default()).await.unwrap();
    settle(async || count(&path.join("layers")) + count(&path.join("containers")) == 0).await;
}

/// As a new daemon does. The old one's tasks see within a second or two that nobody needs them.
async fn reopen(folder: &Path) -> ImageService {
    for _ in 0..600 {
        match ImageService::open(config(folder, |_| {})).await {
            Ok(images) => return images,
            Err(error) if error.to_string().contains("another tripod") => {
                assert_eq!(error.kind(), Kind::FailedPrecondition);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store stays in use");
}

#[tokio::test]
async fn after_a_power_failure_only_synced_layers_are_trusted() {
    let (image, registry, root) =
        (Image::new(vec![layer("1"), layer("2")]), Registry::start().await, Root::new().await);
    image.push(&registry.address, "x", "v1").await;
    let other = Image::new(vec![layer("2")]);
    other.push(&registry.address, "x", "v2").await;
    root.pull(&format!("{}/x:v1", registry.address)).await.unwrap();
    let record = |index: usize| root.path().join("layers").join(image.layers[index].diff_id.hex()).join("layer.json");
    let unsynced = |index| std::fs::read_to_string(record(index)).unwrap().contains("unsynced_since_boot");
    assert!(unsynced(0));
    root.pull(&format!("{}/x:v2", registry.address)).await.unwrap();
    settle(async || !unsynced(0) && !unsynced(1)).await;
    let synced = std::fs::read_to_string(record(0)).unwrap();
    let lost = format!("{},\"unsynced_since_boot\":\"another\"}}", synced.strip_suffix('}').unwrap());
    std::fs::write(record(0), lost).unwrap();
    let folder = root.folder;
    drop(root.images);
    let images = reopen(folder.path()).await;
    assert_eq!(images.list().iter().map(|image| image.id.clone()).collect::<Vec<_>>(), [other.id()]);
    let name = format!("{}/x:v1", registry.address);
    images.pull(PullRequest { reference: name, ..PullRequest::default() }).await.unwrap();
    assert_eq!(images.list().len(), 2);
}

#[tokio::test]
async fn space_is_told_by_filesystem() {
    let (image, registry, root) = (Image::new(vec![layer("1")]), Registry::start().await, Root::new().await);
    image.push(&registry.address, "x", "v1").await;
    let pulled = root.pull(&format!("{}/x:v1", registry.address)).await.unwrap();
    let (overlay, container) = (root.images.overlay(), ContainerId::random());
    let mount = detached(overlay.provision(&pulled.id, &container, None).await.unwrap());
    std::fs::write(visible(&mount).join("big"), vec![1; 100_000]).unwrap();
    let info = root.images.fs_info().await.unwrap();
    assert!(root.path().starts_with(&info.images.mount_point), "{info:?}");
    assert!(info.images.used_bytes >= 4096 && info.images.used_inodes >= 3, "{info:?}");
    assert!(info.containers.used_bytes >= 100_000 && info.containers.used_inodes == 2, "{info:?}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let noise: String =
        (0..600_000_u32).map(|n| char::from(b' ' + (n.wrapping_mul(2_654_435_761) >> 26) as u8)).collect();
    let small = Layer::new(&Tar::new().file("small", &noise[..100_000]).finish(), Compression::Gzip);
    let large = (0..20).fold(Tar::new(), |tar, index| tar.file(&format!("large{index}"), &noise)).gzip();
    let (registry, image) = (Registry::start().await, Image::new(vec![small, large]));
    image.push(&registry.address, "x", "v1").await;
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path(), "6m");
    let images = ImageService::open(config(folder.path(), |_| {})).await.unwrap();
    let pull =
        || images.pull(PullRequest { reference: format!("{}/x:v1", registry.address), ..PullRequest::default() });
    let error = pull().await.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    let root = folder.path().join("root");
    let empty = async || ["staging", "trash", "layers"].iter().all(|name| count(&root.join(name)) == 0);
    settle(empty).await;
    disk.resize("60m");
    pull().await.unwrap();
    drop(images);
}

/// A small filesystem.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: &Path, size: &str) -> Self {
        let options = std::ffi::CString::new(format!("size={size},mode=0700")).unwrap();
        rustix::mount::mount("tmpfs", folder, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self(folder.to_owned())
    }

    fn resize(&self, size: &str) {
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), &*options).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Pulls, removals, containers and sweeps all at once: whatever order they come in, each either works or says why not,
/// and in the end nothing is left and everything works.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pulls_removals_and_containers_at_the_same_time() {
    let (registry, root) = (Registry::start().await, Root::new().await);
    let images: Vec<Image> =
        (0..4).map(|n| Image::new(vec![layer("common"), layer(&n.to_string()), layer("top")])).collect();
    for (index, image) in images.iter().enumerate() {
        image.push(&registry.address, "x", &format!("v{index}")).await;
    }
    let overlay = std::sync::Arc::new(root.images.overlay());
    let work = (0..8_usize).map(|worker| {
        let (store, overlay, address) = (root.images.clone(), overlay.clone(), registry.address.clone());
        let ids: Vec<String> = images.iter().map(Image::id).collect();
        tokio::spawn(async move {
            for round in 0..25_usize {
                let which = (worker + round * 3) % ids.len();
                let reference = format!("{address}/x:v{which}");
                store.pull(PullRequest { reference, ..PullRequest::default() }).await.unwrap();
                let container = ContainerId::random();
                match overlay.provision(&ids[which], &container, None).await {
                    Ok(mount) => {
                        let mount = detached(mount);
                        let content = std::fs::read_to_string(visible(&mount).join("file-common")).unwrap();
                        assert_eq!(content, "common");
                        assert!(visible(&mount).join(format!("file-{which}")).exists());
                    }
                    Err(error) => assert_eq!(error.kind(), Kind::NotFound, "{error}"),
                }
                if (worker + round) % 3 == 0 {
                    store.remove(&ids[which]).await.unwrap();
                }
                overlay.destroy(&container).await.unwrap();
            }
        })
    });
    for worker in work.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    for (index, image) in images.iter().enumerate() {
        let pulled = root.pull(&format!("{}/x:v{index}", registry.address)).await.unwrap();
        drop(overlay.provision(&pulled.id, &ContainerId::random(), None).await.unwrap());
        root.images.remove(&image.id()).await.unwrap();
    }
    super::check::assert_sound(&root.images).await;
    overlay.recover(&Known::default()).await.unwrap();
    let path = root.path();
    let folders = ["layers", "containers", "staging", "trash", "content/blobs/sha256"];
    settle(async || folders.iter().all(|name| count(&path.join(name)) == 0)).await;
}

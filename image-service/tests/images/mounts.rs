//! What the provisioners hand out.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use tar::EntryType;
use tripod_engine::{ContainerId, Kind, plugin::RootFs};

use super::{
    fake::Fake,
    fixture::{Image, Tar},
    root::{Root, both, detached, visible},
};

async fn pulled(root: &Root, image: &Image) -> String {
    let fake = Fake::with(image, |_| None).await;
    root.pull(&fake.name()).await.unwrap().id
}

#[tokio::test]
async fn images_without_layers_and_with_very_many() {
    let root = Root::new().await;
    let none = pulled(&root, &Image::new(Vec::new())).await;
    let layers =
        (0..160).map(|index| Tar::new().file(&format!("f{index}"), "").file("last", &index.to_string()).gzip());
    let many = pulled(&root, &Image::new(layers.collect())).await;
    for provisioner in both(&root) {
        let mount = detached(provisioner.provision(&none, &ContainerId::random(), None).await.unwrap());
        assert_eq!(std::fs::read_dir(visible(&mount)).unwrap().count(), 0);
        std::fs::write(visible(&mount).join("new"), "x").unwrap();
        let mount = detached(provisioner.provision(&many, &ContainerId::random(), None).await.unwrap());
        assert_eq!(std::fs::read_dir(visible(&mount)).unwrap().count(), 161);
        assert_eq!(std::fs::read_to_string(visible(&mount).join("last")).unwrap(), "159");
    }
}

#[tokio::test]
async fn the_same_layer_twice_counts_once() {
    let (root, layer) = (Root::new().await, Tar::new().file("f", "x").gzip());
    let image = Image::new(vec![layer.clone(), Tar::new().file("g", "x").gzip(), layer]);
    let id = pulled(&root, &image).await;
    for provisioner in both(&root) {
        let mount = detached(provisioner.provision(&id, &ContainerId::random(), None).await.unwrap());
        assert_eq!(std::fs::read_dir(visible(&mount)).unwrap().count(), 2);
    }
}

#[tokio::test]
async fn the_root_has_mode_and_owner_of_the_image() {
    let below = Tar::new().entry(EntryType::Directory, "./", "", b"", 0o750, (5, 6)).file("a", "").gzip();
    let (root, above) = (Root::new().await, Tar::new().file("b", "").gzip());
    let id = pulled(&root, &Image::new(vec![below, above])).await;
    for provisioner in both(&root) {
        let mount = detached(provisioner.provision(&id, &ContainerId::random(), None).await.unwrap());
        let metadata = std::fs::metadata(visible(&mount)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o750, 5, 6));
    }
    let store = std::fs::metadata(root.path()).unwrap();
    assert_eq!(store.permissions().mode() & 0o777, 0o700, "layers hold set-user-ID programs");
}

#[tokio::test]
async fn image_volumes_are_read_only_and_cannot_be_left() {
    let one = Tar::new().dir("data/").file("data/x", "1").symlink("out", "/etc").symlink("up", "../../..").gzip();
    let two = Tar::new().file("data/x", "2").file("file", "").gzip();
    let (root, users) = (Root::new().await, [ContainerId::random(), ContainerId::random()]);
    let single = pulled(&root, &Image::new(vec![one.clone()])).await;
    let double = pulled(&root, &Image::new(vec![one, two])).await;
    for (provisioner, user) in both(&root).iter().zip(&users) {
        for (id, content) in [(&single, "1"), (&double, "2")] {
            for (sub, file) in [("", "data/x"), ("data", "x"), ("/data", "x"), ("up/data", "x"), ("data/../data", "x")]
            {
                let volume = provisioner.volume(id, Path::new(sub), user, None).await.unwrap();
                let path = visible(&volume).join(file);
                assert_eq!(std::fs::read_to_string(&path).unwrap(), content, "{sub}");
                let error = std::fs::write(path, "3").unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            }
            // A link out of the image is resolved inside, where there is no /etc.
            for sub in ["out", "absent", "data/x"] {
                let error = provisioner.volume(id, Path::new(sub), user, None).await.unwrap_err();
                assert_eq!(error.kind(), Kind::InvalidArgument, "{sub}: {error}");
            }
        }
    }
    // The lease of a volume holds as one of a root filesystem does.
    root.images.remove(&single).await.unwrap();
    root.images.remove(&double).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(std::fs::read_dir(root.path().join("layers")).unwrap().count(), 2);
    for (provisioner, user) in both(&root).iter().zip(&users) {
        provisioner.destroy(user).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (root, container) = (Root::new().await, ContainerId::random());
    for provisioner in both(&root) {
        let error = provisioner.provision("sha256:0000", &container, None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("pull it first"), "{error}");
        assert_eq!(provisioner.usage(&container, Duration::ZERO).await.unwrap_err().kind(), Kind::NotFound);
        provisioner.destroy(&container).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(root.path().join("containers")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_mount_is_nowhere_on_the_host() {
    let root = Root::new().await;
    let id = pulled(&root, &Image::new(vec![Tar::new().file("f", "x").gzip()])).await;
    for provisioner in both(&root) {
        let mount = provisioner.provision(&id, &ContainerId::random(), None).await.unwrap();
        assert!(matches!(mount, RootFs::Detached(_)));
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(root.path().to_str().unwrap()));
    }
}

#[tokio::test]
async fn folders_that_a_layer_only_implies_keep_what_they_had_below() {
    let below = Tar::new()
        .entry(EntryType::Directory, "tmp/", "", b"", 0o1777, (0, 0))
        .entry(EntryType::Directory, "srv/", "", b"", 0o700, (7, 8))
        .entry(EntryType::Directory, "srv/www/", "", b"", 0o2750, (9, 9))
        .entry(EntryType::Directory, "cut/", "", b"", 0o700, (1, 1))
        .gzip();
    let middle = Tar::new().file("tmp/a", "").file("srv/www/b", "").file("new/c", "").gzip();
    let above = Tar::new().file("srv/.wh.www", "").file("cut/.wh..wh..opq", "").gzip();
    let top = Tar::new().file("srv/www/d", "").gzip();
    let root = Root::new().await;
    let two = pulled(&root, &Image::new(vec![below.clone(), middle.clone()])).await;
    let four = pulled(&root, &Image::new(vec![below, middle, above, top])).await;
    let container = ContainerId::random();
    let images = [(&two, (0o2750, 9, 9)), (&four, (0o755, 0, 0))];
    for (provisioner, (id, www)) in both(&root).iter().flat_map(|provisioner| images.map(|image| (provisioner, image)))
    {
        let mount = detached(provisioner.provision(id, &ContainerId::random(), None).await.unwrap());
        let volume = provisioner.volume(id, Path::new(""), &container, None).await.unwrap();
        for place in [visible(&mount), visible(&volume)] {
            let found = |name: &str| {
                let metadata = std::fs::metadata(place.join(name)).unwrap();
                (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
            };
            assert_eq!(found("tmp"), (0o1777, 0, 0));
            assert_eq!(std::fs::metadata(place.join("tmp")).unwrap().mtime(), 1_600_000_000);
            assert_eq!(found("srv"), (0o700, 7, 8));
            assert_eq!(found("srv/www"), www);
            assert_eq!(found("new"), (0o755, 0, 0));
            assert!(place.join("tmp/a").exists() && place.join("srv/www/d").exists() == (id == &four));
            assert_eq!(place.join("srv/www/b").exists(), id == &two);
            assert_eq!(found("cut"), (0o700, 1, 1));
        }
    }
}

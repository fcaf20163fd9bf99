//! From a registry to a root filesystem, and names in between.

use std::{os::unix::fs::MetadataExt, path::Path};

use tripod_engine::{ContainerId, plugin::Provisioner};

use super::{
    fixture::{Compression, Image, Layer, Tar},
    registry::Registry,
    root::{Root, detached, visible},
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
    let mount = detached(overlay.provision(&pulled.id, &container).await.unwrap());
    let top = visible(&mount);
    assert_eq!(std::fs::read_to_string(top.join("etc/a")).unwrap(), "upper");
    assert_eq!(std::fs::read_to_string(top.join("etc/b")).unwrap(), "b");
    assert!(!top.join("gone").exists());
    assert_eq!(std::fs::metadata(&top).unwrap().mode() & 0o7777, 0o755);
    std::fs::write(top.join("etc/new"), "new").unwrap();
    // After a restart of the daemon the writable layer is kept.
    drop(mount);
    let mount = detached(overlay.provision(&pulled.id, &container).await.unwrap());
    assert_eq!(std::fs::read_to_string(visible(&mount).join("etc/new")).unwrap(), "new");
    assert!(overlay.usage(&container).await.unwrap().inodes >= 3);
    drop(mount);
    overlay.destroy(&container).await.unwrap();
    overlay.destroy(&container).await.unwrap();
    assert_eq!(count(&root.path().join("containers")), 0);
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

//! Images (contract: lines 29 to 33).

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::json;
use tonic::{Code, Status};
use tripod_cri_api::v1::{AuthConfig, ImageFsInfoRequest, ListImagesRequest, PullImageRequest};
use tripod_tests::{
    BUSYBOX, Cri, Fault, Image, Layer, Node, Registry, Tree, busybox, eventually, host_pod, image_spec, pod, shell,
    tests, within,
};

tests![
    the_id_is_the_digest_of_the_configuration_everywhere,
    names_and_digests_are_right_after_tags_move,
    two_registries_share_what_is_the_same,
    every_compression_unpacks,
    a_list_of_platforms_is_resolved,
    credentials_serve_one_call,
    pulls_that_fail_say_what_the_kubelet_reads,
    proxies_are_those_of_the_environment,
    a_stuck_pull_ends_with_an_error,
    a_broken_download_goes_on,
    pinned_images_are_marked,
    an_image_in_use_keeps_its_layers,
    the_filesystem_is_told,
    a_layer_is_stored_once,
    hostile_paths_stay_inside_the_image,
];

/// 29.
async fn the_id_is_the_digest_of_the_configuration_everywhere(node: &mut Node) {
    let cri = node.ready().await;
    let image = Image::busybox();
    assert_eq!(cri.pull(BUSYBOX).await.unwrap(), image.id());
    let listed = cri.all_images().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].id.as_str(), listed[0].repo_tags.as_slice()),
        (image.id().as_str(), &[BUSYBOX.to_owned()][..])
    );
    assert_eq!(listed[0].repo_digests, [format!("registry.test/busybox@{}", tripod_tests::digest(&image.manifest()))]);
    assert!(listed[0].size > 0);
    for name in [BUSYBOX, &image.id(), &listed[0].repo_digests[0], image.id().strip_prefix("sha256:").unwrap()] {
        assert_eq!(cri.image(name).await.unwrap().id, image.id(), "{name}");
    }
    assert!(cri.image("registry.test/other:1").await.is_none());
    let (_, container) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    let status = cri.status(&container).await.unwrap();
    assert_eq!((status.image_id, status.image.unwrap().image), (image.id(), BUSYBOX.to_owned()));
}

/// 29.
async fn names_and_digests_are_right_after_tags_move(node: &mut Node) {
    let registry = node.registry().await;
    let (first, second) = (Image::busybox(), Image::busybox().with("User", "ann"));
    let first_digest = registry.push("app:1", &first);
    let cri = node.start().await;
    cri.pull("registry.test/app:1").await.unwrap();
    let second_digest = registry.push("app:1", &second);
    cri.pull("registry.test/app:1").await.unwrap();
    let moved = cri.image(&second.id()).await.unwrap();
    assert_eq!(moved.repo_tags, ["registry.test/app:1"]);
    assert_eq!(moved.repo_digests, [format!("registry.test/app@{second_digest}")]);
    assert_eq!((moved.uid, moved.username.as_str()), (None, "ann"));
    let old = cri.image(&first.id()).await.unwrap();
    assert!(old.repo_tags.is_empty(), "{old:?}");
    assert_eq!(old.repo_digests, [format!("registry.test/app@{first_digest}")]);
    // By digest, and by tag and digest: the digest counts.
    assert_eq!(cri.pull(&format!("registry.test/app@{first_digest}")).await.unwrap(), first.id());
    assert_eq!(cri.pull(&format!("registry.test/app:1@{first_digest}")).await.unwrap(), first.id());
    assert_eq!(cri.image("registry.test/app:1").await.unwrap().id, second.id());
    cri.remove_image("registry.test/app:1").await.unwrap();
    assert!(cri.image(&second.id()).await.is_none());
    assert!(cri.image(&first.id()).await.is_some());
}

/// 29.
async fn two_registries_share_what_is_the_same(node: &mut Node) {
    let (one, other) = (node.registry().await, Registry::start().await);
    other.serve_as("other.test", &node.certs_dir());
    let image = Image::busybox();
    one.push("app:1", &image);
    other.push("copy:2", &image);
    let cri = node.start().await;
    cri.pull("registry.test/app:1").await.unwrap();
    cri.pull("other.test/copy:2").await.unwrap();
    for layer in &image.layers {
        assert_eq!((one.served(&layer.digest), other.served(&layer.digest)), (1, 0), "the layer is there");
    }
    let mut found = cri.all_images().await;
    assert_eq!(found.len(), 1);
    found[0].repo_tags.sort();
    assert_eq!(found[0].repo_tags, ["other.test/copy:2", "registry.test/app:1"]);
    // Removing by one name removes the image with all of its names, as the contract has it.
    cri.remove_image("other.test/copy:2").await.unwrap();
    assert!(cri.all_images().await.is_empty());
}

async fn every_compression_unpacks(node: &mut Node) {
    let registry = node.registry().await;
    let layers = vec![
        Layer::gzip(busybox()),
        Layer::zstd(
            Tree::default().dir("data/", 0o755).file("data/zstd", 0o600, "z").hardlink("data/link", "data/zstd"),
        ),
        Layer::plain(Tree::default().symlink("data/sym", "zstd")),
        Layer::gzip(Tree::default().file("data/.wh..wh..opq", 0o644, "").file("data/new", 0o644, "n")),
    ];
    registry.push("layers:3", &Image::new(layers[..3].to_vec()));
    registry.push("layers:4", &Image::new(layers));
    let cri = node.start().await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    for (tag, expected) in [("3", "link\nsym\nzstd\nzzz"), ("4", "new\n")] {
        let name = format!("registry.test/layers:{tag}");
        cri.pull(&name).await.unwrap();
        let mut container =
            shell(&format!("layers-{tag}"), "ls /data; cat /data/zstd /data/link /data/sym 2>/dev/null");
        container.image = Some(image_spec(&name));
        assert_eq!(cri.outcome(&pod, &config, &container).await.unwrap().1, expected);
    }
}

async fn a_list_of_platforms_is_resolved(node: &mut Node) {
    let registry = node.registry().await;
    let image = Image::busybox();
    let own = registry.push("hidden:1", &image);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let entry = |digest: &str, architecture: &str| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": image.manifest().len(),
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let other = format!("sha256:{}", "0".repeat(64));
    let list = |entries: Vec<serde_json::Value>| -> Bytes {
        let list =
            json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        serde_json::to_vec(&list).unwrap().into()
    };
    // The registry keeps manifests by repository.
    registry.push_manifest("multi:own", image.manifest());
    let digest = registry.push_manifest("multi:1", list(vec![entry(&other, "s390x"), entry(&own, architecture)]));
    registry.push_manifest("multi:2", list(vec![entry(&other, "s390x")]));
    let cri = node.start().await;
    assert_eq!(cri.pull("registry.test/multi:1").await.unwrap(), image.id());
    let found = cri.image("registry.test/multi:1").await.unwrap();
    assert_eq!(found.repo_digests, [format!("registry.test/multi@{digest}")], "the digest of the list");
    let error = cri.pull("registry.test/multi:2").await.unwrap_err();
    assert!(error.message().contains(architecture), "{error}");
}

async fn pull_as(cri: &Cri, image: &str, user: &str, password: &str) -> Result<(), Status> {
    let auth = AuthConfig { username: user.to_owned(), password: password.to_owned(), ..Default::default() };
    let request = PullImageRequest { image: Some(image_spec(image)), auth: Some(auth), ..Default::default() };
    cri.images().pull_image(request).await.map(drop)
}

/// 30.
async fn credentials_serve_one_call(node: &mut Node) {
    let registry = node.registry().await;
    registry.push("secret:1", &Image::busybox());
    registry.protect("ann", "pass-1234");
    let cri = node.start().await;
    let name = "registry.test/secret:1";
    let denied = cri.pull(name).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains(name), "{denied}");
    assert_eq!(pull_as(&cri, name, "ann", "word-5678").await.unwrap_err().code(), Code::PermissionDenied);
    pull_as(&cri, name, "ann", "pass-1234").await.unwrap();
    assert_eq!(cri.pull(name).await.unwrap_err().code(), Code::PermissionDenied, "not the password of the call before");
    let log = fs::read_to_string(node.folder().join("daemon.log")).unwrap();
    assert!(!log.contains("pass-1234") && !log.contains("word-5678"), "a password is in the log");
}

/// 30.
async fn pulls_that_fail_say_what_the_kubelet_reads(node: &mut Node) {
    node.settings.raw("image.timeouts.attempts", "2");
    node.settings.raw("image.timeouts.backoff_milliseconds", "10");
    let registry = node.registry().await;
    registry.push("busy:1", &Image::busybox());
    registry.fail("busy:1", Fault::Status(503));
    let cri = node.start().await;
    let absent = cri.pull("registry.test/absent:1").await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    assert!(absent.message().contains("registry.test/absent:1"), "{absent}");
    let dead = node.certs_dir().join("dead.test");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("hosts.toml"), "server = \"http://127.0.0.1:9\"\n").unwrap();
    for name in ["dead.test/app:1", "registry.test/busy:1"] {
        let error = cri.pull(name).await.unwrap_err();
        assert_eq!(error.code(), Code::Unknown, "the kubelet reads the message of this code alone");
        assert!(error.message().starts_with("RegistryUnavailable") && error.message().contains(name), "{error}");
    }
    for name in ["", "registry.test/UPPER:1", "registry.test/app:1:2", "registry.test/app@sha256:12"] {
        assert_eq!(cri.pull(name).await.unwrap_err().code(), Code::InvalidArgument, "{name}");
    }
    registry.fail("busy:1", Fault::None);
    cri.pull("registry.test/busy:1").await.unwrap();
}

async fn proxies_are_those_of_the_environment(node: &mut Node) {
    let registry = node.registry().await;
    let image = Image::busybox();
    registry.push("app:1", &image);
    // A name that only the proxy can make something of; what it is sent it serves itself.
    let folder = node.certs_dir().join("far.test");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("hosts.toml"), "server = \"http://far.test\"\n").unwrap();
    node.settings.env("HTTP_PROXY", &format!("http://{}", registry.address()));
    node.settings.env("NO_PROXY", "near.test");
    node.settings.raw("image.timeouts.attempts", "2");
    let cri = node.start().await;
    assert_eq!(cri.pull("far.test/app:1").await.unwrap(), image.id());
}

/// 31.
async fn a_stuck_pull_ends_with_an_error(node: &mut Node) {
    for (name, value) in [("attempts", "1"), ("stall_seconds", "4"), ("response_seconds", "30")] {
        node.settings.raw(&format!("image.timeouts.{name}"), value);
    }
    let registry = node.registry().await;
    let image = Image::busybox();
    registry.push("stuck:1", &image);
    registry.fail(&image.layers[0].digest, Fault::Stalled);
    let cri = node.start().await;
    let begin = Instant::now();
    let error = within("the pull", Duration::from_secs(50), cri.pull("registry.test/stuck:1")).await.unwrap_err();
    assert!(error.message().contains("registry.test/stuck:1") && error.message().contains("no progress"), "{error}");
    assert!(begin.elapsed() > Duration::from_millis(3900));
    registry.fail(&image.layers[0].digest, Fault::None);
    cri.pull("registry.test/stuck:1").await.unwrap();
}

async fn a_broken_download_goes_on(node: &mut Node) {
    node.settings.raw("image.timeouts.backoff_milliseconds", "300");
    let registry = node.registry().await;
    let image = Image::busybox();
    registry.push("cut:1", &image);
    registry.fail(&image.layers[0].digest, Fault::Truncated);
    let cri = node.start().await;
    let pull = tokio::spawn({
        let cri = cri.clone();
        async move { cri.pull("registry.test/cut:1").await }
    });
    let layer = image.layers[0].digest.clone();
    eventually("the first try", Duration::from_secs(30), async || (registry.served(&layer) > 0).then_some(())).await;
    registry.fail(&layer, Fault::None);
    assert_eq!(pull.await.unwrap().unwrap(), image.id());
    assert!(registry.served(&layer) >= 2);
}

/// 32.
async fn pinned_images_are_marked(node: &mut Node) {
    node.settings.raw("image.pinned", "[\"registry.test/keep*\"]");
    let registry = node.registry().await;
    registry.push("keep-me:1", &Image::busybox());
    registry.push("other:1", &Image::busybox().with("User", "ann"));
    let cri = node.start().await;
    for name in ["registry.test/keep-me:1", "registry.test/other:1"] {
        cri.pull(name).await.unwrap();
    }
    assert!(cri.image("registry.test/keep-me:1").await.unwrap().pinned);
    assert!(!cri.image("registry.test/other:1").await.unwrap().pinned);
    let filter = Some(tripod_cri_api::v1::ImageFilter { image: Some(image_spec("registry.test/other:1")) });
    let some = cri.images().list_images(ListImagesRequest { filter }).await.unwrap().into_inner().images;
    assert_eq!(some.len(), 1);
}

/// 32.
async fn an_image_in_use_keeps_its_layers(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("main");
    let (pod, running) = cri.run_in_pod(&config, &shell("main", "sleep 1000")).await.unwrap();
    let created = cri.create(&pod, &config, &shell("created", "cat /etc/motd")).await.unwrap();
    cri.remove_image(BUSYBOX).await.unwrap();
    cri.remove_image(BUSYBOX).await.unwrap();
    assert!(cri.all_images().await.is_empty());
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(cri.sh(&running, "cat /etc/motd").await, "second");
    // The daemon forgets mounts that it has not handed over; the layers are still there for it.
    let cri = node.restart().await;
    cri.start(&created).await.unwrap();
    let status = cri.exited(&created).await;
    assert_eq!((status.exit_code, status.image.unwrap().image), (0, BUSYBOX.to_owned()));
    cri.remove_pod(&pod).await.unwrap();
    eventually("the layers are removed", Duration::from_secs(60), async || {
        fs::read_dir(node.root().join("layers")).unwrap().next().is_none().then_some(())
    })
    .await;
}

/// 33.
async fn the_filesystem_is_told(node: &mut Node) {
    let cri = node.ready().await;
    let info = cri.images().image_fs_info(ImageFsInfoRequest::default()).await.unwrap().into_inner();
    let images = &info.image_filesystems[0];
    let mountpoint = &images.fs_id.as_ref().unwrap().mountpoint;
    assert!(node.root().starts_with(mountpoint), "{mountpoint}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        node.root().join("layers").starts_with(mountpoint)
            && (mounts.lines().any(|line| line.split(' ').nth(1) == Some(mountpoint))
                || fs::exists(mountpoint).unwrap())
    );
    assert!(
        images.used_bytes.unwrap().value > 1 << 20 && images.inodes_used.unwrap().value > 100 && images.timestamp > 0
    );
}

/// Design: no compressed copy, a layer on disk once.
async fn a_layer_is_stored_once(node: &mut Node) {
    let registry = node.registry().await;
    let base = Layer::gzip(busybox());
    for number in 0..4 {
        let own = Layer::gzip(Tree::default().file("own", 0o644, number.to_string()));
        registry.push(&format!("app{number}:1"), &Image::new(vec![base.clone(), own]));
    }
    let cri = node.start().await;
    let pulls = (0..4).map(|number| {
        let cri = cri.clone();
        async move { cri.pull(&format!("registry.test/app{number}:1")).await.unwrap() }
    });
    futures::future::join_all(pulls).await;
    assert_eq!(registry.served(&base.digest), 1);
    assert_eq!(fs::read_dir(node.root().join("layers")).unwrap().count(), 5);
    let size =
        std::process::Command::new("du").args(["-sb", "--apparent-size"]).arg(node.root()).output().unwrap().stdout;
    let size: u64 = String::from_utf8_lossy(&size).split('\t').next().unwrap().parse().unwrap();
    let program = fs::metadata(if fs::exists("/bin/busybox").unwrap() { "/bin/busybox" } else { "/usr/bin/busybox" })
        .unwrap()
        .len();
    assert!(size < program + program / 2 + (8 << 20), "{size} bytes for a program of {program}");
}

/// Layers are hostile: whatever they name, nothing is made outside of them, and the image either works or is refused.
async fn hostile_paths_stay_inside_the_image(node: &mut Node) {
    let registry = node.registry().await;
    let outside = std::path::PathBuf::from("/run/outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "untouched").unwrap();
    fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let target = outside.to_str().unwrap();
    let climb = format!("../../../../../../../../../..{target}");
    let trees = [
        Tree::default().file(&format!("{climb}/a"), 0o644, "x"),
        Tree::default().file(&format!("{target}/b"), 0o644, "x"),
        Tree::default().symlink("link", target).file("link/c", 0o644, "x"),
        Tree::default().symlink("link", &climb).file("link/d", 0o644, "x"),
        Tree::default().symlink("link", target).hardlink("hard", "link/victim").file("hard", 0o600, "changed"),
        Tree::default().hardlink("hard", &format!("{climb}/victim")).file("hard", 0o600, "changed"),
        Tree::default().symlink("link", target).dir("link/", 0o700),
        Tree::default().symlink("link", target).file("link/.wh.victim", 0o644, ""),
        Tree::default().symlink("link", target).file("link/.wh..wh..opq", 0o644, ""),
        Tree::default().file(".wh...", 0o644, "").file("dir/.wh..", 0o644, ""),
    ];
    let cri = node.start().await;
    for (number, tree) in trees.into_iter().enumerate() {
        let name = format!("hostile{number}:1");
        registry.push(&name, &Image::new(vec![Layer::gzip(busybox()), Layer::gzip(tree)]));
        if let Err(error) = cri.pull(&format!("registry.test/{name}")).await {
            assert!(error.message().contains(&format!("registry.test/{name}")), "{error}");
        }
        let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["victim"], "layer {number}");
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched", "layer {number}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&outside).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o755, "layer {number}");
    }
    fs::remove_dir_all(&outside).unwrap();
}

//! Root filesystems that are copies, for filesystems that overlayfs cannot stand on: containers notice nothing.

use std::{fs, process::Command, time::Duration};

use tonic::Code;
use tripod_cri_api::v1::{ContainerState, ContainerStatsRequest, Mount, StatusRequest};
use tripod_tests::{
    BUSYBOX, Cri, Image, Layer, Node, Tree, busybox, eventually, host_pod, image_spec, shell, tests, tripod, with_input,
};

tests![
    containers_run_in_copies,
    copies_outlive_the_daemon,
    an_overlay_carries_none_so_images_are_copied,
    a_full_disk_leaves_nothing_of_a_copy,
];

async fn provisioner(cri: &Cri) -> String {
    let status = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    status.info["provisioner"].clone()
}

/// Bytes and inodes of what a container has written.
async fn written(cri: &Cri, id: &str) -> (u64, u64) {
    let request = ContainerStatsRequest { container_id: id.to_owned() };
    let stats = cri.runtime().container_stats(request).await.unwrap().into_inner().stats.unwrap();
    let layer = stats.writable_layer.unwrap();
    (layer.used_bytes.unwrap().value, layer.inodes_used.unwrap().value)
}

async fn containers_run_in_copies(node: &mut Node) {
    node.settings.text("image.provisioner", "copy");
    let cri = node.ready().await;
    assert_eq!(provisioner(&cri).await, "copy");
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let script = "cat /etc/motd; test -e /etc/gone || echo gone; mknod /null c 1 3 && echo x >/null && echo device";
    let (_, text) = cri.outcome(&pod, &config, &shell("sees", script)).await.unwrap();
    assert_eq!(text, "second\ngone\ndevice\n");

    // Nobody sees what another has written, and the image stays as it is.
    let first = cri.run(&pod, &config, &shell("first", "echo mine >/etc/motd; exec sleep 1000")).await.unwrap();
    let second = cri.run(&pod, &config, &shell("second", "exec sleep 1000")).await.unwrap();
    eventually("the first one's file", Duration::from_secs(20), async || {
        (cri.sh(&first, "cat /etc/motd").await == "mine").then_some(())
    })
    .await;
    assert_eq!(cri.sh(&second, "cat /etc/motd").await, "second");

    // Only what it adds is its own.
    let (bytes, inodes) = written(&cri, &second).await;
    assert!(bytes < 256 << 10 && inodes < 20, "{bytes} bytes, {inodes} inodes");
    cri.sh(&second, "dd if=/dev/zero of=/more bs=1M count=3 2>/dev/null; sync").await;
    eventually("the count of what was written", Duration::from_secs(60), async || {
        (written(&cri, &second).await.0 >= 3 << 20).then_some(())
    })
    .await;

    // Read-only, and an image as a volume.
    let mut closed =
        shell("closed", "touch /new 2>/dev/null || echo closed; touch /image/new 2>/dev/null || cat /image/etc/motd");
    tripod_tests::security_of(&mut closed).readonly_rootfs = true;
    closed.mounts = vec![Mount {
        container_path: "/image".into(),
        readonly: true,
        image: Some(image_spec(BUSYBOX)),
        ..Mount::default()
    }];
    let (_, text) = cri.outcome(&pod, &config, &closed).await.unwrap();
    assert_eq!(text, "closed\nsecond\n");
}

async fn copies_outlive_the_daemon(node: &mut Node) {
    node.settings.text("image.provisioner", "copy");
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let running = cri.run(&pod, &config, &shell("running", "echo kept >/kept; exec sleep 1000")).await.unwrap();
    let created = cri.create(&pod, &config, &shell("created", "cat /etc/motd; exec sleep 1000")).await.unwrap();
    let other = cri.create(&pod, &config, &shell("other", "exec sleep 1000")).await.unwrap();
    // What a crash in the midst of a copy leaves: a folder by another name, in that of a container that nobody knows.
    let unknown = node.root().join("containers").join("f".repeat(64));
    fs::create_dir_all(unknown.join("rootfs.new/etc")).unwrap();
    let cri = node.restart().await;
    assert!(!unknown.exists(), "the rest of a copy is left");
    assert_eq!(cri.sh(&running, "cat /kept").await, "kept");
    cri.start(&created).await.unwrap();
    assert_eq!(cri.status(&created).await.unwrap().state(), ContainerState::ContainerRunning);
    // With other settings those that were not started get what these say.
    node.settings.text("image.provisioner", "overlay");
    let cri = node.restart().await;
    assert_eq!(provisioner(&cri).await, "overlay");
    assert_eq!(cri.sh(&running, "cat /kept").await, "kept");
    cri.start(&other).await.unwrap();
    let folder = node.root().join("containers").join(&other);
    assert!(folder.join("upper").exists() && !folder.join("rootfs").exists());
    cri.sh(&other, "test $(cat /etc/motd) = second").await;
    written(&cri, &running).await;
}

/// Mounts something where the daemon's root folder will be, until the node is gone.
fn mount(node: &Node, arguments: &[&str]) {
    fs::create_dir_all(node.root()).unwrap();
    let status = Command::new("mount").args(arguments).arg(node.root()).status().unwrap();
    assert!(status.success(), "mount {arguments:?}: {status}");
}

async fn an_overlay_carries_none_so_images_are_copied(node: &mut Node) {
    let below = node.folder().join("below");
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(below.join(name)).unwrap();
    }
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| below.join(name).display().to_string());
    mount(node, &["-t", "overlay", "overlay", "-o", &format!("lowerdir={lower},upperdir={upper},workdir={work}")]);
    let registry = node.registry().await;
    let first = busybox().file("a/old", 0o644, "old").file("b/old", 0o644, "old").file("gone", 0o644, "old");
    let second = Tree::default().file(".wh.gone", 0o644, "").file("a/.wh..wh..opq", 0o644, "").file("a/new", 0o644, "");
    let third = Tree::default().file(".wh.b", 0o644, "").file("b/new", 0o644, "");
    registry.push("layers:1", &Image::new([first, second, third].map(Layer::gzip).into()));
    let cri = node.ready().await;
    let told = provisioner(&cri).await;
    assert!(told.starts_with("copy (overlayfs cannot stand on the filesystem of "), "{told}");
    cri.pull("registry.test/layers:1").await.unwrap();
    let mut container = shell("main", "find /a /b /gone 2>/dev/null | sort | tr '\\n' ' '");
    container.image = Some(image_spec("registry.test/layers:1"));
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let (_, text) = cri.outcome(&pod, &config, &container).await.unwrap();
    assert_eq!(text, "/a /a/new /b /b/new ");
    // The same after a restart, from what is recorded of the layers.
    let cri = node.restart().await;
    container.metadata.as_mut().unwrap().attempt = 1;
    container.log_path = "main/1.log".into();
    let (_, text) = cri.outcome(&pod, &config, &container).await.unwrap();
    assert_eq!(text, "/a /a/new /b /b/new ");
    node.clear(&cri).await;
    node.stop().await;

    // Who asks for overlays all the same is told why there are none, and what to do.
    let (settings, socket) = (node.folder().join("overlay.toml"), node.socket());
    fs::write(&settings, "image.provisioner = \"overlay\"\n").unwrap();
    let mut command = tripod(&["serve"]);
    command.arg("--config").arg(settings).arg("--root").arg(node.root());
    command.arg("--state").arg(node.state()).arg("--socket").arg(&socket);
    let (code, _, error) = with_input(command, b"").await;
    assert!(code != 0 && !socket.exists(), "{error}");
    for part in ["overlayfs cannot stand on the filesystem of", "image.provisioner"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    umount(node);
}

/// Takes away what [`mount`] made. A daemon has just let go of it.
fn umount(node: &Node) {
    let status = Command::new("umount").arg("--lazy").arg(node.root()).status().unwrap();
    assert!(status.success(), "umount: {status}");
}

async fn a_full_disk_leaves_nothing_of_a_copy(node: &mut Node) {
    mount(node, &["-t", "tmpfs", "tmpfs", "-o", "size=48m"]);
    node.settings.text("image.provisioner", "copy");
    node.settings.raw("image.min_free_bytes", "0");
    let registry = node.registry().await;
    registry.push("large:1", &Image::new(vec![Layer::gzip(busybox().file("large", 0o644, "x".repeat(24 << 20)))]));
    let cri = node.start().await;
    cri.pull("registry.test/large:1").await.unwrap();
    let mut container = shell("main", "exec sleep 1000");
    container.image = Some(image_spec("registry.test/large:1"));
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let error = cri.create(&pod, &config, &container).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.message().contains("is full") && error.message().contains("remove containers or images"), "{error}");
    eventually("the end of what was copied", Duration::from_secs(60), async || {
        let of = |name: &str| fs::read_dir(node.root().join(name)).unwrap().count();
        (of("containers") + of("trash") == 0).then_some(())
    })
    .await;
    node.clear(&cri).await;
    node.stop().await;
    umount(node);
}

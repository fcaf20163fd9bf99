//! Volumes and devices (contract: lines 18, 23 and 24).

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use tonic::Code;
use tripod_cri_api::v1::{Device, ImageSpec, Mount, MountPropagation};
use tripod_tests::{Image, Layer, Node, Tree, image_spec, mount, shell, tests};

use crate::containers::pod_of;

tests![
    mounts_are_echoed_and_the_termination_log_is_found,
    devices_by_path_and_by_folder,
    a_missing_device_is_told_before_the_start,
    an_absent_source_is_not_invented,
    symlinks_of_volumes_resolve_on_their_side,
    read_only_reaches_mounts_below,
    mounts_propagate_where_asked,
    an_image_is_a_volume,
];

/// 18.
async fn mounts_are_echoed_and_the_termination_log_is_found(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let log = node.folder().join("termination-log");
    fs::write(&log, "").unwrap();
    let mut config_of = shell("main", "echo bye >/dev/termination-log; exit 1");
    config_of.mounts = vec![mount(log.to_str().unwrap(), "/dev/termination-log")];
    let (status, _) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    let found = status.mounts.iter().find(|mount| mount.container_path == "/dev/termination-log").unwrap();
    assert_eq!(fs::read_to_string(&found.host_path).unwrap(), "bye\n");
}

fn device(host_path: &str, container_path: &str, permissions: &str) -> Device {
    Device {
        host_path: host_path.to_owned(),
        container_path: container_path.to_owned(),
        permissions: permissions.to_owned(),
    }
}

/// 23.
async fn devices_by_path_and_by_folder(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    fs::create_dir_all("/run/devices/deep").unwrap();
    for (name, minor) in [("zero", "5"), ("deep/full", "7")] {
        let status =
            std::process::Command::new("mknod").args([&format!("/run/devices/{name}"), "c", "1", minor]).status();
        assert!(status.unwrap().success());
    }
    // Opening /dev/autofs does nothing, and no container has it by default.
    let script = "head -c 2 /dev/one/zero | wc -c; echo x 2>/dev/null >/dev/one/deep/full || echo full; \
                  true </dev/automounter && echo opened; true 2>/dev/null >/dev/automounter || echo denied";
    let mut config_of = shell("main", script);
    config_of.devices = vec![device("/run/devices", "/dev/one", "rw"), device("/dev/autofs", "/dev/automounter", "r")];
    let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(text, "2\nfull\nopened\ndenied\n");
    fs::remove_dir_all("/run/devices").unwrap();
}

/// 23.
async fn a_missing_device_is_told_before_the_start(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let mut config_of = shell("main", "true");
    config_of.devices = vec![device("/dev/no-such-device", "/dev/x", "rw")];
    let error = cri.create(&pod, &config, &config_of).await.unwrap_err();
    assert!(error.message().contains("/dev/no-such-device"), "{error}");
    assert!(cri.containers().await.is_empty());
}

/// 24.
async fn an_absent_source_is_not_invented(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let source = node.folder().join("volume");
    let mut config_of = shell("main", "echo there >/volume/file");
    config_of.mounts = vec![mount(source.to_str().unwrap(), "/volume")];
    let error = cri.create(&pod, &config, &config_of).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains(source.to_str().unwrap()), "{error}");
    assert!(!source.exists() && cri.containers().await.is_empty());
    // The same request succeeds once the source is there.
    fs::create_dir(&source).unwrap();
    cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "there\n");
}

/// 24.
async fn symlinks_of_volumes_resolve_on_their_side(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let (real, link) = (node.folder().join("real"), node.folder().join("link"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("file"), "content").unwrap();
    symlink(&real, &link).unwrap();
    let mut first = shell("source", "cat /volume/file");
    first.mounts = vec![mount(link.to_str().unwrap(), "/volume")];
    assert_eq!(cri.outcome(&pod, &config, &first).await.unwrap().1, "content");

    // In the image, /trap leads to the host's folder by an absolute path and by climbing.
    let outside = PathBuf::from("/run/outside");
    fs::create_dir(&outside).unwrap();
    let climbing = format!("../../../../../../../../..{}", outside.display());
    let registry = node.registry().await;
    let tree = tripod_tests::busybox().symlink("absolute", outside.to_str().unwrap()).symlink("climbing", &climbing);
    registry.push("trap:1", &Image::new(vec![tripod_tests::Layer::gzip(tree)]));
    cri.pull("registry.test/trap:1").await.unwrap();
    let mut second = shell("target", &format!("cat {}/file", outside.display()));
    second.image = Some(image_spec("registry.test/trap:1"));
    for target in ["/absolute", "/climbing"] {
        second.mounts = vec![mount(real.to_str().unwrap(), target)];
        second.metadata.as_mut().unwrap().name = target[1..].to_owned();
        second.log_path = format!("{}.log", &target[1..]);
        assert_eq!(
            cri.outcome(&pod, &config, &second).await.unwrap().1,
            "content",
            "{target} ends inside of the image"
        );
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }
    fs::remove_dir(&outside).unwrap();
}

fn run(arguments: &[&str]) {
    let status = std::process::Command::new(arguments[0]).args(&arguments[1..]).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

/// 24.
async fn read_only_reaches_mounts_below(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let source = node.folder().join("volume");
    fs::create_dir_all(source.join("below")).unwrap();
    run(&["mount", "-t", "tmpfs", "tmpfs", source.join("below").to_str().unwrap()]);
    let script = "touch /volume/file 2>/dev/null || echo top; touch /volume/below/file 2>/dev/null || echo below";
    let mut plain = shell("plain", script);
    plain.mounts = vec![mount(source.to_str().unwrap(), "/volume")];
    plain.mounts[0].readonly = true;
    let mut recursive = shell("recursive", script);
    recursive.mounts.clone_from(&plain.mounts);
    recursive.mounts[0].recursive_read_only = true;
    assert_eq!(cri.outcome(&pod, &config, &plain).await.unwrap().1, "top\n");
    assert_eq!(cri.outcome(&pod, &config, &recursive).await.unwrap().1, "top\nbelow\n");
    run(&["umount", source.join("below").to_str().unwrap()]);
}

/// 24.
async fn mounts_propagate_where_asked(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let source = node.folder().join("volume");
    fs::create_dir_all(source.join("later")).unwrap();
    let mut config_of = shell("main", "sleep 1000");
    config_of.mounts = vec![mount(source.to_str().unwrap(), "/private"), mount(source.to_str().unwrap(), "/slave")];
    config_of.mounts[1].propagation = MountPropagation::PropagationHostToContainer.into();
    let id = cri.run(&pod, &config, &config_of).await.unwrap();
    let later = source.join("later");
    run(&["mount", "-t", "tmpfs", "tmpfs", later.to_str().unwrap()]);
    fs::write(later.join("file"), "").unwrap();
    assert_eq!(cri.sh(&id, "ls /private/later /slave/later").await, "/private/later:\n\n/slave/later:\nfile");
    run(&["umount", later.to_str().unwrap()]);
    assert_eq!(cri.sh(&id, "ls /slave/later").await, "", "an unmount of the host is not held up");
    // Both ways only where the container is privileged.
    config_of.metadata.as_mut().unwrap().name = "both".into();
    config_of.mounts[1].propagation = MountPropagation::PropagationBidirectional.into();
    let error = cri.create(&pod, &config, &config_of).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

/// 18.
async fn an_image_is_a_volume(node: &mut Node) {
    let tree = Tree::default().dir("data/", 0o755).file("data/file", 0o644, "content\n");
    let image = Image::new(vec![Layer::gzip(tree)]);
    let digest = node.registry().await.push("data:1", &image);
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let volume = |sub_path: &str| Mount {
        container_path: "/volume".into(),
        image: Some(ImageSpec { image: "registry.test/data:1".into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        readonly: true,
        ..Default::default()
    };
    let mut container = shell("whole", "cat /volume/data/file; touch /volume/new 2>/dev/null || echo read-only");
    container.mounts = vec![volume("")];
    let error = cri.create(&pod, &config, &container).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.message().contains("registry.test/data:1"), "{error}");
    cri.pull("registry.test/data:1").await.unwrap();
    let (status, text) = cri.outcome(&pod, &config, &container).await.unwrap();
    assert_eq!(text, "content\nread-only\n");
    let told = status.mounts[0].image.clone().unwrap();
    assert!(told.image_ref.contains(&digest) || told.image_ref == image.id(), "{told:?}");
    // A folder of it, and one that it does not have.
    let mut part = shell("part", "cat /volume/file");
    part.mounts = vec![volume("data")];
    assert_eq!(cri.outcome(&pod, &config, &part).await.unwrap().1, "content\n");
    let mut absent = shell("absent", "true");
    absent.mounts = vec![volume("no/such/folder")];
    let error = cri.run(&pod, &config, &absent).await.unwrap_err();
    assert!(error.message().contains("no/such/folder"), "{error}");
    // The image may go while a container has it.
    let mut late = shell("late", "cat /volume/data/file");
    late.mounts = vec![volume("")];
    let id = cri.create(&pod, &config, &late).await.unwrap();
    cri.remove_image("registry.test/data:1").await.unwrap();
    let cri = node.restart().await;
    cri.start(&id).await.unwrap();
    assert_eq!(cri.exited(&id).await.exit_code, 0);
}

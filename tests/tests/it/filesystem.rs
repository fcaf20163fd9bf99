//! What a container sees of files, and what it may do with them (contract: line 24).

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    process::Command,
};

use tonic::Code;
use tripod_cri_api::v1::{ContainerConfig, Int64Value, StatusRequest};
use tripod_tests::{
    Image, Layer, Node, Tree, busybox, host_pod, image_spec, mount, security_of, shell, tests, unconfined,
};

use crate::containers::pod_of;

tests![
    mount_options_hold_for_a_volume_and_all_below,
    targets_are_made_and_links_stay_inside,
    a_source_by_descriptor_is_what_was_opened,
    masked_and_read_only_paths,
    privileged_containers_have_all_of_proc_and_sys,
    a_link_in_place_of_proc_is_refused,
    terminals_and_the_console_belong_to_the_user,
    the_umask_is_the_usual_one,
    the_time_zone_is_that_of_the_settings,
    cgroups_are_seen_from_inside,
];

/// What kubelet masks and protects; in 1.31, so that there is something to add.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container with the lists that kubelet sends.
pub(crate) fn masked(name: &str, script: &str) -> ContainerConfig {
    let mut config = unconfined(shell(name, script));
    let security = security_of(&mut config);
    security.masked_paths = MASKED.map(str::to_owned).into();
    security.readonly_paths = READ_ONLY.map(str::to_owned).into();
    config
}

fn run(arguments: &[&str]) {
    let status = Command::new(arguments[0]).args(&arguments[1..]).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

async fn mount_options_hold_for_a_volume_and_all_below(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let source = node.folder().join("volume");
    fs::create_dir_all(source.join("below")).unwrap();
    run(&["mount", "-t", "tmpfs", "tmpfs", source.join("below").to_str().unwrap()]);
    for folder in [source.clone(), source.join("below")] {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        run(&["cp", "/bin/busybox", &path("true")]);
        run(&["mknod", "-m", "666", &path("zero"), "c", "1", "5"]);
    }
    // busybox gives up what set-user-ID gives it, so whether that works is read from the mount.
    let script = "for d in /volume /volume/below; do $d/true && echo ran; head -c1 $d/zero | wc -c; touch $d/f && echo w; \
                  done 2>&1; grep ' /volume' /proc/mounts | grep -c nosuid";
    let with = |name: &str, options: &[&str]| {
        let mut config = shell(name, script);
        config.mounts = vec![mount(source.to_str().unwrap(), "/volume")];
        config.mounts[0].mount_options = options.iter().map(|&option| option.to_owned()).collect();
        config
    };
    let outcome = async |config_of: ContainerConfig| {
        let (status, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
        (status.mounts[0].mount_options.clone(), text)
    };
    let (told, text) = outcome(with("none", &[])).await;
    assert_eq!((told.len(), text.as_str()), (0, "ran\n1\nw\nran\n1\nw\n0\n"));
    let (told, text) = outcome(with("nosuid", &["nosuid"])).await;
    assert_eq!((told, text.as_str()), (vec!["nosuid".to_owned()], "ran\n1\nw\nran\n1\nw\n2\n"));
    let (told, text) = outcome(with("all", &["nodev", "noexec", "nosuid"])).await;
    assert_eq!(told, ["noexec", "nodev", "nosuid"]);
    assert_eq!(text.matches("true: Permission denied").count(), 2, "{text}");
    assert_eq!(text.matches("zero: Permission denied").count(), 2, "{text}");
    assert_eq!(text.matches("w\n").count(), 2, "{text}");
    let unknown = cri.create(&pod, &config, &with("unknown", &["noexec", "noatime"])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(
        unknown.message().contains("mounts[0].mount_options") && unknown.message().contains("noatime"),
        "{unknown}"
    );
    let status = cri.runtime().status(StatusRequest::default()).await.unwrap().into_inner();
    assert!(status.features.unwrap().mount_options);
    run(&["umount", source.join("below").to_str().unwrap()]);
}

async fn targets_are_made_and_links_stay_inside(node: &mut Node) {
    let tree = busybox()
        .dir("real/", 0o755)
        .symlink("relative", "real")
        .symlink("absolute", "/real/deep")
        .symlink("etc/dangling", "../var/made/later")
        .symlink("loop", "pool")
        .symlink("pool", "loop");
    node.registry().await.push("links:1", &Image::new(vec![Layer::gzip(tree)]));
    let cri = node.ready().await;
    cri.pull("registry.test/links:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let source = node.folder().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content\n").unwrap();
    let (folder, file) = (source.to_str().unwrap().to_owned(), source.join("file").to_str().unwrap().to_owned());
    let with = |name: &str, script: &str, mounts: &[(&str, &str)]| {
        let mut config = shell(name, script);
        config.image = Some(image_spec("registry.test/links:1"));
        config.mounts = mounts.iter().map(|(host, target)| mount(host, target)).collect();
        config
    };
    let mounts = [
        (folder.as_str(), "/relative/a"),
        (&folder, "/absolute"),
        (&folder, "/not/there/yet"),
        (&file, "/etc/dangling"),
        (&file, "/new/folder/with-file"),
    ];
    let script = "cat /real/a/file /real/deep/file /not/there/yet/file /var/made/later /new/folder/with-file; \
                  stat -c %a:%u /not /not/there; umask 077; touch /new/own && echo mine";
    let (_, text) = cri.outcome(&pod, &config, &with("links", script, &mounts)).await.unwrap();
    assert_eq!(text, format!("{}755:0\n755:0\nmine\n", "content\n".repeat(5)));
    // What was made lies in this container's own layer.
    let (_, text) =
        cri.outcome(&pod, &config, &with("next", "ls -d /not /new /real/a 2>/dev/null", &[])).await.unwrap();
    assert_eq!(text, "");
    for (name, target) in [("loop", "/loop"), ("below", "/loop/x")] {
        let id = cri.create(&pod, &config, &with(name, "true", &[(&folder, target)])).await.unwrap();
        let error = cri.start(&id).await.unwrap_err();
        let message = error.message().to_lowercase();
        assert!(message.contains(target) && message.contains("symbolic link"), "{error}");
    }
}

/// As kubelet does for subPath: whoever exchanges the path meanwhile comes too late.
async fn a_source_by_descriptor_is_what_was_opened(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let volume = node.folder().join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("sub/file"), "right\n").unwrap();
    let opened = File::open(volume.join("sub")).unwrap();
    fs::rename(volume.join("sub"), volume.join("moved")).unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("sub")).unwrap();
    let source = format!("/proc/{}/fd/{}", std::process::id(), opened.as_raw_fd());
    let mut config_of = shell("main", "cat /sub/file; ls /sub");
    config_of.mounts = vec![mount(&source, "/sub")];
    let (status, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!((text.as_str(), status.mounts[0].host_path.as_str()), ("right\nfile\n", source.as_str()));
}

async fn masked_and_read_only_paths(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let script = "cat /proc/interrupts /proc/timer_list /proc/keys 2>/dev/null | wc -c; \
                  ls -A /sys/firmware /proc/scsi /proc/acpi 2>/dev/null | grep -v : | grep -c .; \
                  for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper; do \
                  echo x 2>&1 >$f; done; echo x >/proc/interrupts && echo swallowed";
    let (_, text) = cri.outcome(&pod, &config, &masked("plain", &format!("({script}) 2>&1"))).await.unwrap();
    assert!(text.starts_with("0\n0\n") && text.ends_with("swallowed\n"), "{text}");
    assert!(text.matches("Read-only file system").count() >= 2, "{text}");
    // procMount Unmasked: kubelet sends no list.
    let script = "head -c1 /proc/interrupts | grep -q . && echo seen; echo x >/proc/sys/kernel/hostname && hostname";
    let mut unmasked = shell("unmasked", script);
    security_of(&mut unmasked).capabilities = None;
    let (_, text) = cri.outcome(&pod, &config, &unmasked).await.unwrap();
    assert!(text.starts_with("seen\n"), "{text}");
}

async fn privileged_containers_have_all_of_proc_and_sys(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = host_pod("main");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = cri.run_pod(&config).await.unwrap();
    let script = "head -c1 /proc/interrupts | grep -q . && echo seen; cat /proc/sys/vm/overcommit_memory >/proc/sys/vm/overcommit_memory \
                  && echo written; grep -E ' (/sys|/proc|/sys/fs/cgroup/[a-z]+) ' /proc/mounts | grep -c ' ro,'";
    let mut privileged = masked("main", script);
    security_of(&mut privileged).privileged = true;
    let (_, text) = cri.outcome(&pod, &config, &privileged).await.unwrap();
    assert_eq!(text, "seen\nwritten\n0\n");
    let mut plain = masked("plain", script);
    security_of(&mut plain).privileged = false;
    let (_, text) = cri.outcome(&pod, &config, &plain).await.unwrap();
    assert!(!text.contains("seen") && !text.contains("written") && !text.ends_with("\n0\n"), "{text}");
}

async fn a_link_in_place_of_proc_is_refused(node: &mut Node) {
    let registry = node.registry().await;
    for (name, path, target) in [("proc:1", "proc", "volume"), ("sys:1", "sys", "/"), ("dev:1", "dev", "/volume/dev")] {
        let tree = busybox().dir("volume/", 0o755).symlink(path, target);
        registry.push(name, &Image::new(vec![Layer::gzip(tree)]));
    }
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    for (name, path) in [("proc", "/proc"), ("sys", "/sys"), ("dev", "/dev")] {
        let image = format!("registry.test/{name}:1");
        cri.pull(&image).await.unwrap();
        let mut config_of = masked(name, "true");
        config_of.image = Some(image_spec(&image));
        let error = cri.run(&pod, &config, &config_of).await.unwrap_err();
        assert!(error.message().contains(path) && error.message().contains("symbolic link"), "{error}");
    }
    // A plain file is no place either.
    registry.push(
        "file:1",
        &Image::new(vec![Layer::gzip(busybox()), Layer::gzip(Tree::default().file("proc", 0o644, ""))]),
    );
    cri.pull("registry.test/file:1").await.unwrap();
    let mut config_of = masked("file", "true");
    config_of.image = Some(image_spec("registry.test/file:1"));
    let error = cri.run(&pod, &config, &config_of).await.unwrap_err();
    assert!(error.message().contains("/proc") && error.message().contains("Not a directory"), "{error}");
}

async fn terminals_and_the_console_belong_to_the_user(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let script = "tty; stat -c '%u %a' /dev/pts/0; test -c /dev/console && echo hi >/dev/console; readlink /dev/ptmx; \
                  stat -c %a /dev/pts/ptmx; ls /dev/pts | xargs; stat -c %t:%T /dev/console /dev/pts/0 | uniq | wc -l";
    let mut config_of = shell("main", script);
    config_of.tty = true;
    security_of(&mut config_of).run_as_user = Some(Int64Value { value: 1000 });
    let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(text.replace('\r', ""), "/dev/pts/0\n1000 620\nhi\npts/ptmx\n666\n0 ptmx\n1\n");
    // Without a terminal there is no console.
    let (_, text) = cri.outcome(&pod, &config, &shell("plain", "ls /dev/console 2>&1; tty")).await.unwrap();
    assert!(text.contains("No such file") && text.contains("not a tty"), "{text}");
}

async fn the_umask_is_the_usual_one(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let id = cri.run(&pod, &config, &shell("main", "umask >/umask; sleep 1000")).await.unwrap();
    assert_eq!(cri.sh(&id, "umask; while ! test -s /umask; do sleep 0.1; done; cat /umask").await, "0022\n0022");
}

async fn the_time_zone_is_that_of_the_settings(node: &mut Node) {
    node.settings.text("timezone", "Asia/Tokyo");
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let look = "date +%Z; { echo > /etc/localtime; } 2>/dev/null || echo read-only";
    let (_, text) = cri.outcome(&pod, &config, &shell("main", look)).await.unwrap();
    assert_eq!(text, "JST\nread-only\n");
    let own = node.folder().join("own");
    fs::write(&own, "mine\n").unwrap();
    let mut brings = shell("own", "cat /etc/localtime");
    brings.mounts.push(mount(own.to_str().unwrap(), "/etc/localtime"));
    let (_, text) = cri.outcome(&pod, &config, &brings).await.unwrap();
    assert_eq!(text, "mine\n");
}

async fn cgroups_are_seen_from_inside(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let script = "cut -d: -f3 /proc/self/cgroup | sort -u; for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do \
                  mkdir $d/x 2>/dev/null && echo made; done; grep -c ' /sys/fs/cgroup' /proc/mounts >/dev/null && echo there";
    let (_, text) = cri.outcome(&pod, &config, &shell("main", script)).await.unwrap();
    assert_eq!(text, "/\nthere\n", "a namespace of its own, read-only");
    let id = cri.run(&pod, &config, &shell("long", "sleep 1000")).await.unwrap();
    assert_eq!(cri.sh(&id, "cut -d: -f3 /proc/self/cgroup | sort -u").await, "/");
}

//! Containers (contract: lines 15 to 24).

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    time::{Duration, Instant},
};

use tonic::Code;
use tripod_cri_api::v1::{
    ContainerConfig, ContainerState, Device, Int64Value, LinuxContainerResources, MountPropagation, PodSandboxConfig,
    Signal, SupplementalGroupsPolicy, UpdateContainerResourcesRequest, UpdatePodSandboxResourcesRequest,
};
use tripod_tests::{Cri, Image, Node, container, host_pod, image_spec, mount, security_of, shell, tests};

tests![
    exits_are_told_with_code_reason_and_times,
    a_start_that_fails_says_why,
    lack_of_memory_is_told,
    stop_asks_then_kills,
    a_second_stop_shortens_the_grace,
    stop_signals_of_image_and_request,
    mounts_are_echoed_and_the_termination_log_is_found,
    users_and_groups,
    limits_hold_before_the_first_instruction,
    limits_change_created_and_running,
    a_pod_resize_never_fails,
    devices_by_path_and_by_folder,
    a_missing_device_is_told_before_the_start,
    an_absent_source_is_not_invented,
    symlinks_of_volumes_resolve_on_their_side,
    read_only_reaches_mounts_below,
    mounts_propagate_where_asked,
    security_is_what_was_asked,
];

async fn pod_of(cri: &Cri) -> (String, PodSandboxConfig) {
    let config = host_pod("main");
    (cri.run_pod(&config).await.unwrap(), config)
}

/// 15.
async fn exits_are_told_with_code_reason_and_times(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    for (script, code, reason) in [
        ("exit 0", 0, "Completed"),
        ("exit 3", 3, "Error"),
        ("kill -9 $$", 137, "Error"),
        ("kill -15 $$; sleep 9", 143, "Error"),
    ] {
        // PID 1 of a namespace is spared its own signals: the shell that ends is its child.
        let script = format!("/bin/sh -c '{script}'; exit $?");
        let (status, _) = cri.outcome(&pod, &config, &shell(&format!("exit-{code}"), &script)).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason));
        assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at, "{status:?}");
        assert!(status.finished_at - status.started_at < 10_000_000_000);
    }
}

/// 15.
async fn a_start_that_fails_says_why(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let id = cri.create(&pod, &config, &container("absent", &["/no/such/program"])).await.unwrap();
    let error = cri.start(&id).await.unwrap_err();
    assert!(error.message().contains("/no/such/program"), "{error}");
    let status = cri.status(&id).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 128));
    assert!(status.reason == "StartError" && status.message.contains("/no/such/program"), "{status:?}");
    assert!(status.finished_at > 0);
    cri.remove(&id).await.unwrap();
    cri.run(&pod, &config, &container("absent", &["/bin/true"])).await.unwrap();
}

fn limited(name: &str, script: &str, memory: i64) -> ContainerConfig {
    let mut config = shell(name, script);
    let limits = LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(limits);
    config
}

/// 16.
async fn lack_of_memory_is_told(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let hog = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    for (name, script) in [("at-once", format!("exec {hog}")), ("child", format!("{hog}; sleep 0.2; exit 9"))] {
        let (status, _) = cri.outcome(&pod, &config, &limited(name, &script, 16 << 20)).await.unwrap();
        assert_eq!(status.reason, "OOMKilled", "{name}: {status:?}");
        assert_ne!(status.exit_code, 0);
    }
    let (status, _) = cri.outcome(&pod, &config, &limited("enough", "exit 9", 64 << 20)).await.unwrap();
    assert_eq!(status.reason, "Error");
}

/// 17.
async fn stop_asks_then_kills(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let polite =
        cri.run(&pod, &config, &shell("polite", "trap 'exit 7' TERM; while :; do sleep 0.05; done")).await.unwrap();
    cri.sh(&polite, "sleep 0.2").await;
    cri.stop(&polite, 20).await.unwrap();
    assert_eq!(cri.status(&polite).await.unwrap().exit_code, 7);
    cri.stop(&polite, 20).await.unwrap();

    // It ignores the signal, and has a process in a session of its own.
    let script = "trap '' TERM; setsid sleep 4321 & while :; do sleep 0.05; done";
    let deaf = cri.run(&pod, &config, &shell("deaf", script)).await.unwrap();
    cri.sh(&deaf, "sleep 0.2").await;
    let begin = Instant::now();
    cri.stop(&deaf, 1).await.unwrap();
    assert!((Duration::from_millis(900)..Duration::from_secs(5)).contains(&begin.elapsed()));
    assert_eq!(cri.status(&deaf).await.unwrap().exit_code, 137);
    assert!(!processes().iter().any(|line| line.contains("sleep 4321")), "gone when Stop returns");
}

fn processes() -> Vec<String> {
    let folders = fs::read_dir("/proc").unwrap().flatten();
    let lines = folders.filter_map(|folder| fs::read(folder.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

/// 17.
async fn a_second_stop_shortens_the_grace(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let id = cri.run(&pod, &config, &shell("deaf", "trap '' TERM; while :; do sleep 0.05; done")).await.unwrap();
    let begin = Instant::now();
    let first = tokio::spawn({
        let (cri, id) = (cri.clone(), id.clone());
        async move { cri.stop(&id, 50).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    cri.stop(&id, 1).await.unwrap();
    first.await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

/// 17.
async fn stop_signals_of_image_and_request(node: &mut Node) {
    node.registry().await.push("usr1:1", &Image::busybox().with("StopSignal", "SIGUSR1"));
    let cri = node.ready().await;
    cri.pull("registry.test/usr1:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let script = "trap 'exit 1' TERM; trap 'exit 2' USR1; trap 'exit 3' USR2; echo ready; while :; do sleep 0.05; done";
    let mut usr1 = shell("image", script);
    usr1.image = Some(image_spec("registry.test/usr1:1"));
    let mut usr2 = usr1.clone();
    usr2.metadata.as_mut().unwrap().name = "request".into();
    usr2.stop_signal = Signal::Sigusr2.into();
    for (config_of, code, signal) in [(usr1, 2, Signal::Sigusr1), (usr2, 3, Signal::Sigusr2)] {
        let id = cri.run(&pod, &config, &config_of).await.unwrap();
        assert_eq!(cri.status(&id).await.unwrap().stop_signal(), signal);
        cri.sh(&id, "sleep 0.3").await;
        cri.stop(&id, 20).await.unwrap();
        assert_eq!(cri.status(&id).await.unwrap().exit_code, code);
    }
}

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

/// 19.
async fn users_and_groups(node: &mut Node) {
    node.registry().await.push("ann:1", &Image::busybox().with("User", "ann"));
    let cri = node.ready().await;
    cri.pull("registry.test/ann:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let id = |value: i64| Some(Int64Value { value });
    let base = |name: &str| shell(name, "id -u; id -g; id -G");
    let mut cases = Vec::new();

    cases.push((base("root"), 0, 0, vec![0]));
    let mut by_id = base("by-id");
    security_of(&mut by_id).run_as_user = id(1000);
    cases.push((by_id, 1000, 1001, vec![1001, 1002, 1003]));
    let mut by_name = base("by-name");
    security_of(&mut by_name).run_as_username = "ann".into();
    cases.push((by_name, 1000, 1001, vec![1001, 1002, 1003]));
    let mut by_image = base("by-image");
    by_image.image = Some(image_spec("registry.test/ann:1"));
    cases.push((by_image, 1000, 1001, vec![1001, 1002, 1003]));
    let mut merged = base("merged");
    security_of(&mut merged).run_as_user = id(1000);
    security_of(&mut merged).run_as_group = id(5000);
    security_of(&mut merged).supplemental_groups = vec![6000];
    let mut strict = merged.clone();
    strict.metadata.as_mut().unwrap().name = "strict".into();
    strict.log_path = "strict.log".into();
    security_of(&mut strict).supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
    cases.push((merged, 1000, 5000, vec![1002, 1003, 5000, 6000]));
    cases.push((strict, 1000, 5000, vec![5000, 6000]));
    let mut unknown = base("unknown-id");
    security_of(&mut unknown).run_as_user = id(4242);
    cases.push((unknown, 4242, 0, vec![0]));

    for (config_of, uid, gid, groups) in cases {
        let name = config_of.metadata.clone().unwrap().name;
        let (status, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid), (uid, gid), "{name}");
        let mut lines = text.lines();
        assert_eq!(
            (lines.next().unwrap(), lines.next().unwrap()),
            (uid.to_string().as_str(), gid.to_string().as_str()),
            "{name}"
        );
        let mut run: Vec<i64> = lines.next().unwrap().split(' ').map(|group| group.parse().unwrap()).collect();
        run.sort_unstable();
        run.dedup();
        assert_eq!(run, groups, "{name}");
        let mut told = user.supplemental_groups;
        told.push(gid);
        told.sort_unstable();
        told.dedup();
        assert_eq!(told, groups, "{name}: the status tells what runs");
    }
    let mut nobody = base("no-such-user");
    security_of(&mut nobody).run_as_username = "bob".into();
    let error = cri.create(&pod, &config, &nobody).await.unwrap_err();
    assert!(error.message().contains("bob"), "{error}");
}

/// What the cgroup of a container says, seen from the host.
fn limit(container: &str, controller: &str, file: &str) -> String {
    let groups = find(&format!("/sys/fs/cgroup/{controller}"), container);
    fs::read_to_string(format!("{}/{file}", groups.expect("a cgroup of the container"))).unwrap().trim().to_owned()
}

fn find(folder: &str, name: &str) -> Option<String> {
    for entry in fs::read_dir(folder).ok()?.flatten().filter(|entry| entry.path().is_dir()) {
        let path = entry.path().to_string_lossy().into_owned();
        if path.ends_with(name) {
            return Some(path);
        }
        if let Some(found) = find(&path, name) {
            return Some(found);
        }
    }
    None
}

/// 22.
async fn limits_hold_before_the_first_instruction(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus; \
                  cat /proc/self/oom_score_adj";
    let mut config_of = shell("main", script);
    config_of.linux.as_mut().unwrap().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_shares: 512,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpuset_cpus: "0".into(),
        oom_score_adj: 500,
        ..Default::default()
    });
    let (status, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(text, format!("{}\n512\n50000\n0\n500\n", 64 << 20), "{status:?}");
    let told = status.resources.unwrap().linux.unwrap();
    assert_eq!((told.memory_limit_in_bytes, told.cpu_shares, told.cpu_quota), (64 << 20, 512, 50_000));
}

async fn update(cri: &Cri, id: &str, limits: LinuxContainerResources) -> Result<(), tonic::Status> {
    let request =
        UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(limits), ..Default::default() };
    cri.runtime().update_container_resources(request).await.map(drop)
}

/// 20.
async fn limits_change_created_and_running(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let script = "dd if=/dev/zero of=/dev/shm/full bs=1M count=20 2>/dev/null; sleep 1000";
    let id = cri.create(&pod, &config, &limited("main", script, 64 << 20)).await.unwrap();
    let memory = |bytes| LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() };
    let shown = async || {
        let told = cri.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
        (told.memory_limit_in_bytes, told.cpu_shares)
    };
    update(&cri, &id, memory(96 << 20)).await.unwrap();
    assert_eq!(shown().await.0, 96 << 20);
    cri.start(&id).await.unwrap();
    assert_eq!(limit(&id, "memory", "memory.limit_in_bytes"), (96 << 20).to_string());
    update(&cri, &id, LinuxContainerResources { cpu_shares: 300, ..memory(128 << 20) }).await.unwrap();
    assert_eq!(shown().await, (128 << 20, 300));
    assert_eq!(limit(&id, "cpu", "cpu.shares"), "300");
    // Below what is in use: refused, and nothing has changed.
    cri.sh(&id, "while [ $(cat /sys/fs/cgroup/memory/memory.usage_in_bytes) -lt 20000000 ]; do sleep 0.05; done").await;
    let error = update(&cri, &id, LinuxContainerResources { cpu_shares: 700, ..memory(4 << 20) }).await.unwrap_err();
    assert!(!error.message().is_empty());
    assert_eq!(shown().await, (128 << 20, 300), "{error}");
    let now = (limit(&id, "memory", "memory.limit_in_bytes"), limit(&id, "cpu", "cpu.shares"));
    assert_eq!(now, ((128 << 20).to_string(), "300".to_owned()));
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    cri.stop(&id, 0).await.unwrap();
    assert_eq!(update(&cri, &id, memory(96 << 20)).await.unwrap_err().code(), Code::FailedPrecondition);
    fs::remove_file("/dev/shm/full").unwrap_or_default();
}

/// 21.
async fn a_pod_resize_never_fails(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, _) = pod_of(&cri).await;
    let resources = Some(LinuxContainerResources { memory_limit_in_bytes: 1, cpu_shares: -5, ..Default::default() });
    let request = UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod, resources, ..Default::default() };
    cri.runtime().update_pod_sandbox_resources(request).await.unwrap();
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

/// What nobody may believe to have and not have: capabilities, no_new_privs, masks, a read-only root; and what is not
/// built is refused.
async fn security_is_what_was_asked(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let mut config_of = shell(
        "main",
        "grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /file 2>/dev/null || echo read-only; \
                               cat /proc/uptime | head -c 1 | wc -c; touch /proc/sys/kernel/x 2>/dev/null || echo no",
    );
    let security = security_of(&mut config_of);
    security.readonly_rootfs = true;
    security.no_new_privs = true;
    security.masked_paths = vec!["/proc/uptime".into()];
    security.readonly_paths = vec!["/proc/sys".into()];
    security.capabilities = Some(tripod_cri_api::v1::Capability {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Default::default()
    });
    let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!(text, "CapEff:\t0000000000000400\nNoNewPrivs:\t1\nread-only\n0\nno\n");
    let mut filtered = shell("filtered", "true");
    security_of(&mut filtered).seccomp = Some(tripod_cri_api::v1::SecurityProfile::default());
    let error = cri.create(&pod, &config, &filtered).await.unwrap_err();
    assert!(error.message().contains("seccomp"), "{error}");
}

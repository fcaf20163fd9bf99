//! Limits from the settings: what containers and pods get that ask for nothing, with each handler's own.

use std::{fs, time::Duration};

use tripod_cri_api::v1::{
    Capability, ContainerConfig, ContainerState, ContainerStatus, LinuxContainerResources, PodSandboxConfig,
    StatusRequest,
};
use tripod_tests::{Cri, Node, eventually, host_pod, log_text, mount, pod, security_of, shell, tests};

use crate::resources::{group, unified};

tests![
    ulimits_and_capabilities_are_those_of_the_settings,
    sysctls_are_set_where_the_pod_can_have_them,
    processes_are_limited_and_refusals_told,
    who_fills_the_disk_is_killed_and_told_why,
];

/// A handler with limits of its own.
const SMALL: &str = "small";

/// Makes a pod by a handler with one container in it: the pod's and the container's IDs.
async fn run_by(cri: &Cri, handler: &str, pod: &PodSandboxConfig, container: &ContainerConfig) -> (String, String) {
    let id = cri.run_pod_by(handler, pod).await.unwrap();
    let container = cri.run(&id, pod, container).await.unwrap();
    (id, container)
}

/// Open files (soft and hard), size of core files and the bounding set, of the container's first process and of one that
/// is started in it later.
async fn seen(cri: &Cri, handler: &str, name: &str, change: impl Fn(&mut ContainerConfig)) -> [String; 2] {
    let script = "grep -E '^Max (open files|core file size)' /proc/self/limits; grep CapBnd /proc/self/status";
    let mut container = shell(name, &format!("{script}; exec sleep 1000"));
    change(&mut container);
    let (_, id) = run_by(cri, handler, &host_pod(name), &container).await;
    let later = cri.sh(&id, script).await;
    let log = cri.status(&id).await.unwrap().log_path;
    let first = eventually("what the first process sees", Duration::from_secs(20), async || {
        let text = log_text(&fs::read_to_string(&log).unwrap());
        text.contains("CapBnd").then_some(text)
    });
    [first.await, later].map(|text| {
        let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let told = words.map(|words| match words[..] {
            ["Max", "open", "files", soft, hard, _] => format!("{soft}:{hard}"),
            ["Max", "core", "file", "size", soft, ..] => soft.to_owned(),
            ["CapBnd:", set] => set.trim_start_matches('0').to_owned(),
            ref other => panic!("{other:?}"),
        });
        told.collect::<Vec<_>>().join(" ")
    })
}

async fn ulimits_and_capabilities_are_those_of_the_settings(node: &mut Node) {
    node.settings.raw("limits.ulimits.nofile", "\"512:1024\"");
    node.settings.raw("limits.ulimits.core", "{ soft = 0, hard = 0 }");
    node.settings.raw("limits.capabilities", "[\"CHOWN\", \"cap_kill\"]");
    node.settings.raw("runtimes.small.limits.ulimits.nofile", "128");
    node.settings.raw("runtimes.small.limits.capabilities", "[]");
    let cri = node.ready().await;
    assert_eq!(seen(&cri, "", "plain", |_| {}).await, ["0 512:1024 21"; 2]);
    assert_eq!(seen(&cri, SMALL, "small", |_| {}).await, ["0 128:128 "; 2]);
    let more = |container: &mut ContainerConfig| {
        let capabilities = Capability { add_capabilities: vec!["NET_BIND_SERVICE".into()], ..Default::default() };
        security_of(container).capabilities = Some(capabilities);
    };
    assert_eq!(seen(&cri, "", "more", more).await, ["0 512:1024 421"; 2]);
    // What is in force can be read back.
    let info = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner().info;
    assert!(info["config"].contains("512:1024"), "{}", info["config"]);
}

async fn sysctls_are_set_where_the_pod_can_have_them(node: &mut Node) {
    let (port, shm) = ("net.ipv4.ip_unprivileged_port_start", "kernel.shm_rmid_forced");
    node.settings.raw(&format!("limits.sysctls.{port:?}"), "7");
    node.settings.raw(&format!("limits.sysctls.{shm:?}"), "\"1\"");
    node.settings.raw(&format!("runtimes.small.limits.sysctls.{port:?}"), "9");
    let cri = node.ready().await;
    let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    let mut own = pod("own");
    own.linux.as_mut().unwrap().sysctls = [(port.to_owned(), "8".to_owned())].into();
    for (handler, pod, wanted) in [
        ("", pod("plain"), "7\n1"),
        (SMALL, pod("small"), "9\n1"),
        ("", own, "8\n1"),
        ("", host_pod("host"), "1024\n1"),
    ] {
        let (_, id) = run_by(&cri, handler, &pod, &shell("main", "exec sleep 1000")).await;
        assert_eq!(cri.sh(&id, read).await, wanted, "{pod:?}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap().trim(), "0");
}

async fn processes_are_limited_and_refusals_told(node: &mut Node) {
    node.settings.raw("limits.pids", "30");
    node.settings.raw("runtimes.small.limits.pids", "12");
    node.settings.raw("runtimes.free.limits.pids", "\"unlimited\"");
    let cri = node.ready().await;
    for (handler, wanted) in [("", "30"), (SMALL, "12"), ("free", "max")] {
        let name = format!("pod-{handler}");
        let (_, id) = run_by(&cri, handler, &host_pod(&name), &shell("main", "exec sleep 1000")).await;
        let limit = fs::read_to_string(format!("{}/pids.max", group(&id, "pids"))).unwrap();
        assert_eq!(limit.trim(), wanted, "{handler:?}");
    }
    // One more than there may be: the shell gives up, and the status says why.
    let script = "for n in $(seq 12); do sleep 1000 & done; exit 0";
    let (_, id) = run_by(&cri, SMALL, &host_pod("many"), &shell("main", script)).await;
    let status = cri.exited(&id).await;
    assert!(status.exit_code != 0 && status.reason == "Error", "{status:?}");
    assert!(status.message.contains("the limit is 12"), "{status:?}");
    if unified() {
        let mut config = shell("main", "exec sleep 1000");
        let unified = [("pids.max".to_owned(), "77".to_owned())].into();
        config.linux.as_mut().unwrap().resources = Some(LinuxContainerResources { unified, ..Default::default() });
        let (_, id) = run_by(&cri, "", &host_pod("own"), &config).await;
        let limit = fs::read_to_string(format!("{}/pids.max", group(&id, "pids"))).unwrap();
        assert_eq!(limit.trim(), "77", "the request's own wins");
    }
}

/// Waits for an end that comes with the next look at the disk, or with the one after it where looking takes long.
async fn ended(cri: &Cri, id: &str) -> ContainerStatus {
    eventually("the end of who fills the disk", Duration::from_secs(90), async || {
        let status = cri.status(id).await.unwrap();
        (status.state() == ContainerState::ContainerExited).then_some(status)
    })
    .await
}

async fn who_fills_the_disk_is_killed_and_told_why(node: &mut Node) {
    // Where the filesystem could hold the limit nobody would get above it: that is another test's.
    node.settings.raw("image.project_quotas", "false");
    node.settings.raw("limits.disk_bytes", "4194304");
    node.settings.raw("limits.disk_interval_seconds", "1");
    node.settings.raw("runtimes.free.limits.disk_bytes", "\"unlimited\"");
    let cri = node.ready().await;
    let fill = |mebibytes: u32| format!("dd if=/dev/zero of=/file bs=1M count={mebibytes} && exec sleep 1000");
    let told = |status: &ContainerStatus| {
        assert_eq!((status.reason.as_str(), status.exit_code), ("DiskLimitExceeded", 137), "{status:?}");
        assert!(status.message.contains("the limit is 4194304"), "{status:?}");
    };
    let config = host_pod("main");
    let (pod, full) = run_by(&cri, "", &config, &shell("full", &fill(16))).await;
    let modest = cri.run(&pod, &config, &shell("modest", &fill(1))).await.unwrap();
    // Volumes are not the container's own.
    let mut volume = shell("volume", "dd if=/dev/zero of=/data/file bs=1M count=16 && exec sleep 1000");
    fs::create_dir("/run/data").unwrap();
    volume.mounts.push(mount("/run/data", "/data"));
    let volume = cri.run(&pod, &config, &volume).await.unwrap();
    let (_, free) = run_by(&cri, "free", &host_pod("free"), &shell("main", &fill(16))).await;
    told(&ended(&cri, &full).await);
    // The limit goes with the container, and the next daemon looks after it.
    let cri = node.restart().await;
    // It may end while this still writes.
    let _ = cri.exec(&modest, &["/bin/sh", "-c", "dd if=/dev/zero of=/more bs=1M count=16"], 20).await;
    told(&ended(&cri, &modest).await);
    for id in [volume, free] {
        assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    }
    fs::remove_dir_all("/run/data").unwrap();
}

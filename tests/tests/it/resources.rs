//! Limits (contract: lines 20 to 22).

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use tonic::Code;
use tripod_cri_api::v1::{
    ContainerState, HugepageLimit, LinuxContainerResources, UpdateContainerResourcesRequest,
    UpdatePodSandboxResourcesRequest,
};
use tripod_tests::{Cri, Node, eventually, shell, tests};

use crate::containers::{limited, pod_of};

tests![
    limits_hold_before_the_first_instruction,
    limits_change_created_and_running,
    a_frozen_container_is_resized_and_stopped,
    a_pod_resize_never_fails,
    limits_that_cannot_be_are_refused,
    files_of_the_unified_tree_are_written_or_refused,
];

/// Whether the node has cgroup v2 alone.
pub(crate) fn unified() -> bool {
    fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap()
}

/// The cgroup of a container, seen from the host: of the hierarchy with `controller`, if there are several.
pub(crate) fn group(container: &str, controller: &str) -> String {
    let top = if unified() { "/sys/fs/cgroup".to_owned() } else { format!("/sys/fs/cgroup/{controller}") };
    find(&top, container).expect("a cgroup of the container")
}

/// What that cgroup says in the file with this name on v1 and on v2.
fn limit(container: &str, controller: &str, (v1, v2): (&str, &str)) -> String {
    let file = if unified() { v2 } else { v1 };
    fs::read_to_string(format!("{}/{file}", group(container, controller))).unwrap().trim().to_owned()
}

const MEMORY: (&str, &str) = ("memory.limit_in_bytes", "memory.max");
const SHARES: (&str, &str) = ("cpu.shares", "cpu.weight");

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
    let files = match unified() {
        true => "memory.max memory.swap.max cpu.weight cpu.max cpuset.cpus memory.oom.group",
        false => "memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus",
    };
    let mut config_of = shell("main", &format!("cd /sys/fs/cgroup; cat {files} /proc/self/oom_score_adj"));
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
    let wanted = match unified() {
        true => format!("{}\n0\n59\n50000 100000\n0\n1\n500\n", 64 << 20),
        false => format!("{}\n512\n50000\n0\n500\n", 64 << 20),
    };
    assert_eq!(text, wanted, "{status:?}");
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
    let wrong = LinuxContainerResources { cpu_quota: 5, ..memory(130 << 20) };
    let error = update(&cri, &id, wrong).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("cpu_quota"), "{error}");
    assert_eq!(shown().await.0, 96 << 20);
    cri.start(&id).await.unwrap();
    assert_eq!(limit(&id, "memory", MEMORY), (96 << 20).to_string());
    update(&cri, &id, LinuxContainerResources { cpu_shares: 300, ..memory(128 << 20) }).await.unwrap();
    assert_eq!(shown().await, (128 << 20, 300));
    // What the kernel never takes, created or running: refused before anything is written.
    let wrong = LinuxContainerResources { cpu_period: 5, ..memory(130 << 20) };
    let error = update(&cri, &id, wrong).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("cpu_period"), "{error}");
    assert_eq!((shown().await, limit(&id, "memory", MEMORY)), ((128 << 20, 300), (128 << 20).to_string()));
    let shares = limit(&id, "cpu", SHARES);
    assert_eq!(shares, if unified() { "39" } else { "300" });
    // Below what is in use: refused, and nothing has changed.
    let usage = if unified() { "memory.current" } else { "memory/memory.usage_in_bytes" };
    cri.sh(&id, &format!("while [ $(cat /sys/fs/cgroup/{usage}) -lt 20000000 ]; do sleep 0.05; done")).await;
    let error = update(&cri, &id, LinuxContainerResources { cpu_shares: 700, ..memory(4 << 20) }).await.unwrap_err();
    assert!(!error.message().is_empty());
    assert_eq!(shown().await, (128 << 20, 300), "{error}");
    let now = (limit(&id, "memory", MEMORY), limit(&id, "cpu", SHARES));
    assert_eq!(now, ((128 << 20).to_string(), shares));
    // A CPU that does not exist: the kernel refuses it after the limits before it were written.
    let absent = LinuxContainerResources { cpu_shares: 700, cpuset_cpus: "4000".into(), ..memory(130 << 20) };
    update(&cri, &id, absent).await.unwrap_err();
    assert_eq!((limit(&id, "memory", MEMORY), limit(&id, "cpu", SHARES)), now);
    assert_eq!(shown().await, (128 << 20, 300));
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    cri.stop(&id, 0).await.unwrap();
    assert_eq!(update(&cri, &id, memory(96 << 20)).await.unwrap_err().code(), Code::FailedPrecondition);
    fs::remove_file("/dev/shm/full").unwrap_or_default();
}

/// 20.
async fn a_frozen_container_is_resized_and_stopped(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let id = cri.run(&pod, &config, &limited("main", "sleep 1000 & sleep 1000", 64 << 20)).await.unwrap();
    let (file, frozen) = if unified() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    let file = format!("{}/{file}", group(&id, "freezer"));
    fs::write(&file, frozen).unwrap();
    // The older hierarchies are freezing for a while.
    let done = async || (fs::read_to_string(&file).unwrap().trim() == frozen).then_some(());
    eventually("that it is frozen", Duration::from_secs(20), done).await;
    let larger = LinuxContainerResources { memory_limit_in_bytes: 96 << 20, cpu_shares: 300, ..Default::default() };
    update(&cri, &id, larger).await.unwrap();
    assert_eq!(limit(&id, "memory", MEMORY), (96 << 20).to_string());
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), frozen, "a resize thaws nothing");
    let begin = Instant::now();
    cri.stop(&id, 0).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    assert_eq!(cri.status(&id).await.unwrap().exit_code, 137);
}

/// 22.
async fn files_of_the_unified_tree_are_written_or_refused(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let with = |name: &str, file: &str, value: &str| {
        let mut container = shell(name, "cat /sys/fs/cgroup/memory.high; exec sleep 1000");
        let unified = [(file.to_owned(), value.to_owned())].into();
        let limits = LinuxContainerResources { unified, memory_limit_in_bytes: 64 << 20, ..Default::default() };
        container.linux.as_mut().unwrap().resources = Some(limits);
        container
    };
    for (number, (file, value)) in [
        ("../memory.high", "1M"),
        ("a/memory.high", "1M"),
        ("memory", "1"),
        ("cgroup.procs", "1"),
        ("cgroup.subtree_control", "-memory"),
        ("nonesuch.max", "1"),
    ]
    .into_iter()
    .enumerate()
    {
        let error = cri.create(&pod, &config, &with(&format!("wrong-{number}"), file, value)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{file}: {error}");
        assert!(error.message().contains(file), "{error}");
    }
    let high = with("high", "memory.high", "33554432");
    if !unified() {
        let error = cri.create(&pod, &config, &high).await.unwrap_err();
        assert!(error.message().contains("v2"), "{error}");
        return;
    }
    let id = cri.run(&pod, &config, &high).await.unwrap();
    let read = |file: &str| fs::read_to_string(format!("{}/{file}", group(&id, ""))).unwrap().trim().to_owned();
    assert_eq!(read("memory.high"), "33554432");
    // It was written last, so it counts more than the field.
    let files: HashMap<String, String> = [("memory.high", "40894464"), ("memory.max", "83886080"), ("cpu.idle", "1")]
        .map(|(file, value)| (file.to_owned(), value.to_owned()))
        .into();
    let new = LinuxContainerResources { unified: files, memory_limit_in_bytes: 70 << 20, ..Default::default() };
    update(&cri, &id, new.clone()).await.unwrap();
    assert_eq!((read("memory.high"), read("memory.max")), ("40894464".to_owned(), "83886080".to_owned()));
    assert_eq!(read("cpu.idle"), "1");
    update(&cri, &id, LinuxContainerResources { cpu_shares: 512, ..Default::default() }).await.unwrap();
    let unknown = [("memory.high".to_owned(), "max".to_owned()), ("memory.nonesuch".to_owned(), "1".to_owned())].into();
    update(&cri, &id, LinuxContainerResources { unified: unknown, ..Default::default() }).await.unwrap_err();
    assert_eq!(read("memory.high"), "40894464", "put back");
}

/// 21.
async fn a_pod_resize_never_fails(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, _) = pod_of(&cri).await;
    let resources = Some(LinuxContainerResources { memory_limit_in_bytes: 1, cpu_shares: -5, ..Default::default() });
    let request = UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod, resources, ..Default::default() };
    cri.runtime().update_pod_sandbox_resources(request).await.unwrap();
}

/// 22.
async fn limits_that_cannot_be_are_refused(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let wrong: [(&str, LinuxContainerResources); 3] = [
        ("cpuset", LinuxContainerResources { cpuset_cpus: "4000".into(), ..Default::default() }),
        ("cpuset", LinuxContainerResources { cpuset_cpus: "one".into(), ..Default::default() }),
        (
            "3KB",
            LinuxContainerResources {
                hugepage_limits: vec![HugepageLimit { page_size: "3KB".into(), limit: 1 << 20 }],
                ..Default::default()
            },
        ),
    ];
    for (number, (part, limits)) in wrong.into_iter().enumerate() {
        let mut container = shell(&format!("wrong-{number}"), "true");
        container.linux.as_mut().unwrap().resources = Some(limits);
        let error = cri.run(&pod, &config, &container).await.unwrap_err();
        assert!(error.message().contains(part), "{part}: {error}");
    }
}

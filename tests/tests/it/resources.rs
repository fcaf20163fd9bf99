//! Limits (contract: lines 20 to 22).

use std::fs;

use tonic::Code;
use tripod_cri_api::v1::{
    ContainerState, HugepageLimit, LinuxContainerResources, UpdateContainerResourcesRequest,
    UpdatePodSandboxResourcesRequest,
};
use tripod_tests::{Cri, Node, shell, tests};

use crate::containers::{limited, pod_of};

tests![
    limits_hold_before_the_first_instruction,
    limits_change_created_and_running,
    a_pod_resize_never_fails,
    limits_that_cannot_be_are_refused,
];

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

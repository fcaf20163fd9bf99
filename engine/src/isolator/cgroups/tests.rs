//! These tests make real cgroups, so they need root and a host with cgroups.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tripod_shim_protocol::{DeviceKind, DeviceRule};

use super::*;
use crate::{Kind, isolator::fixture::Fixture};

/// Cgroups below a base of the test's own, which must be gone at its end.
struct Own(Cgroups);

impl Own {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = format!("tripod-test-{}-{number}", std::process::id());
        Self(Cgroups::discover(&CgroupConfig { base, ..CgroupConfig::default() }).expect("cgroups"))
    }

    /// The unified tree alone, as on a host without v1; here it may have few controllers or none.
    fn unified() -> Self {
        let mut own = Self::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let only: String =
            mounts.lines().filter(|line| line.contains(" - cgroup2 ")).map(|l| format!("{l}\n")).collect();
        own.0.host = Host::of(&only).expect("this test needs a cgroup2 mount");
        own
    }

    fn is_gone(&self) -> bool {
        self.0.bases().all(|base| !base.exists())
    }

    /// Plans for a container whose request has these limits.
    async fn plan(&self, resources: Resources) -> LaunchPlan {
        let mut fixture = Fixture::new();
        fixture.config.resources = resources;
        let mut plan = LaunchPlan::default();
        plan.resources.devices = all_devices();
        fixture.prepare_into(&self.0, &mut plan).await.expect("a plan");
        plan
    }

    async fn create(&self, resources: Resources) -> LaunchPlan {
        let plan = self.plan(resources).await;
        self.0.create(&plan.cgroups, &plan.resources).expect("cgroups");
        plan
    }

    fn read(&self, plan: &LaunchPlan, controller: Controller, name: &str) -> String {
        let (dir, _) = self.0.host.dir(&plan.cgroups.dirs, controller).expect("the controller");
        file::read(&dir.join(name)).expect("the file")
    }

    /// The value of a limit, whichever tree it is in.
    fn limit(&self, plan: &LaunchPlan, controller: Controller, v1: &str, v2: &str) -> String {
        let name = if self.0.unified() { v2 } else { v1 };
        self.read(plan, controller, name)
    }

    async fn finish(self, plan: &LaunchPlan) {
        self.0.remove(&plan.cgroups).await.expect("removal");
        self.0.remove(&plan.cgroups).await.expect("removal of what is gone");
        assert!(self.is_gone(), "something is left");
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Only what a failed test left; a test that passed finds nothing here.
        let left = self.0.own();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
                runtime.block_on(self.0.remove_all(&left)).expect("removal of what is left");
            });
        });
    }
}

fn all_devices() -> Vec<DeviceRule> {
    vec![DeviceRule { allow: true, kind: None, major: None, minor: None, access: "rwm".to_owned() }]
}

/// A program that is in the container's cgroups.
fn spawn(plan: &LaunchPlan, script: &str) -> Child {
    let joins: String =
        plan.cgroups.dirs.iter().map(|dir| format!("echo 0 > '{}/cgroup.procs'; ", dir.display())).collect();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{joins}exec /bin/sh -c '{script}'")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("a shell")
}

/// Waits until `done`, at most ten seconds.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

fn limits() -> Resources {
    Resources {
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".to_owned()),
        memory_limit: Some(64 << 20),
        pids_limit: Some(100),
        ..Resources::default()
    }
}

#[tokio::test]
async fn limits_are_set_before_anybody_enters() {
    let own = Own::new();
    let plan = own.create(limits()).await;
    assert_eq!(own.read(&plan, Controller::Pids, "pids.max"), "100");
    assert_eq!(own.read(&plan, Controller::Cpuset, "cpuset.cpus"), "0");
    assert_eq!(own.limit(&plan, Controller::Memory, "memory.limit_in_bytes", "memory.max"), "67108864");
    if own.0.unified() {
        assert_eq!(own.read(&plan, Controller::Cpu, "cpu.weight"), "59");
        assert_eq!(own.read(&plan, Controller::Cpu, "cpu.max"), "50000 100000");
        assert_eq!(own.read(&plan, Controller::Memory, "memory.oom.group"), "1");
    } else {
        assert_eq!(own.read(&plan, Controller::Cpu, "cpu.shares"), "512");
        assert_eq!(own.read(&plan, Controller::Cpu, "cpu.cfs_quota_us"), "50000");
        assert_eq!(own.read(&plan, Controller::Memory, "memory.memsw.limit_in_bytes"), "67108864", "no swap");
        assert!(!own.read(&plan, Controller::Cpuset, "cpuset.mems").is_empty(), "inherited");
    }
    own.finish(&plan).await;
}

#[tokio::test]
async fn what_fails_half_way_is_undone() {
    let own = Own::new();
    let mut plan = own.plan(limits()).await;
    plan.resources.cpuset_cpus = Some("5000".to_owned());
    let error = own.0.create(&plan.cgroups, &plan.resources).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("refused \"5000\""), "{error}");
    assert!(own.is_gone());
}

#[tokio::test]
async fn everything_that_runs_is_killed_and_removed() {
    let own = Own::new();
    let plan = own.create(Resources::default()).await;
    let mut child = spawn(&plan, "sleep 100 & sleep 100 & sleep 100");
    let dir = plan.cgroups.dirs.last().unwrap().clone();
    until("four processes", || kill::processes(&dir).unwrap().len() == 4).await;
    let mut usage = Usage::default();
    own.0.usage(&plan, &mut usage);
    assert_eq!(usage.pids.processes, Some(4));
    assert!(usage.cpu.total_ns.unwrap() > 0 && usage.memory.usage.unwrap() > 0);
    own.0.kill_rest(&plan).await.unwrap();
    assert!(kill::processes(&dir).unwrap().is_empty());
    child.wait().unwrap();
    own.finish(&plan).await;
}

#[tokio::test]
async fn removal_takes_nested_cgroups_and_their_processes_along() {
    let own = Own::new();
    let plan = own.create(Resources::default()).await;
    for dir in &plan.cgroups.dirs {
        fs::create_dir_all(dir.join("inner/most")).unwrap();
    }
    let mut inner = plan.clone();
    let (pids, _) = own.0.host.dir(&plan.cgroups.dirs, Controller::Pids).unwrap();
    inner.cgroups.dirs = vec![pids.join("inner/most")];
    let mut child = spawn(&inner, "sleep 100");
    until("the process", || !kill::processes(pids).unwrap().is_empty()).await;
    own.0.remove(&plan.cgroups).await.unwrap();
    child.wait().unwrap();
    own.finish(&plan).await;
}

#[tokio::test]
async fn the_unified_tree_kills_all_at_once() {
    let own = Own::unified();
    let plan = own.create(Resources::default()).await;
    assert!(plan.cgroups.unified && plan.cgroups.dirs.len() == 1);
    let dir = plan.cgroups.dirs[0].clone();
    let nested = dir.join("inner");
    fs::create_dir(&nested).unwrap();
    let mut inner = plan.clone();
    inner.cgroups.dirs = vec![nested];
    let mut child = spawn(&inner, "while :; do (sleep 0.01; sleep 0.01) & done");
    until("a few forks", || kill::processes(&dir).unwrap().len() > 20).await;
    let mut usage = Usage::default();
    own.0.usage(&plan, &mut usage);
    assert!(usage.cpu.total_ns.unwrap() > 0 && usage.cpu.pressure.is_some());
    own.0.kill(&plan.cgroups).await.unwrap();
    assert!(kill::processes(&dir).unwrap().is_empty());
    child.wait().unwrap();
    own.finish(&plan).await;
}

#[tokio::test]
async fn the_unified_tree_keeps_devices_from_a_container() {
    let own = Own::unified();
    let zero =
        DeviceRule { allow: true, kind: Some(DeviceKind::Char), major: Some(1), minor: Some(5), access: "r".into() };
    let mut plan = own.plan(Resources::default()).await;
    plan.resources.devices = vec![zero];
    own.0.create(&plan.cgroups, &plan.resources).expect("cgroups");
    let read = |device: &str| spawn(&plan, &format!("head -c 1 {device} || exit 9")).wait().unwrap().code();
    assert_eq!(read("/dev/zero"), Some(0));
    assert_eq!(read("/dev/urandom"), Some(9));
    own.finish(&plan).await;
}

#[tokio::test]
async fn forks_do_not_outrun_the_kill() {
    let own = Own::new();
    let plan = own.create(Resources { pids_limit: Some(200), ..Resources::default() }).await;
    let mut child = spawn(&plan, "while :; do (sleep 0.01; sleep 0.01) & done");
    let dir = plan.cgroups.dirs[0].clone();
    until("a few forks", || kill::processes(&dir).unwrap().len() > 20).await;
    own.0.kill(&plan.cgroups).await.unwrap();
    child.wait().unwrap();
    own.finish(&plan).await;
}

#[tokio::test]
async fn the_operators_limit_of_processes_holds_and_refusals_are_told() {
    let limits = |pids| Limits { pids, ..Limits::default() };
    let limits = ByHandler::new(limits(Some(1)), [("free".to_owned(), limits(None))].into());
    let mut own = Own::new();
    own.0.pids = limits.map(|limits| limits.pids);
    let plan = own.create(Resources::default()).await;
    assert_eq!(own.read(&plan, Controller::Pids, "pids.max"), "1");
    let status = spawn(&plan, "(sleep 1); true").wait().unwrap();
    assert!(!status.success());
    let limitation = own.0.limitation(&plan).await.unwrap();
    assert!(limitation.reason.is_none() && limitation.message.contains("the limit is 1"), "{limitation:?}");
    own.0.remove(&plan.cgroups).await.unwrap();
    let mut fixture = Fixture::new();
    fixture.config.resources.pids_limit = Some(7);
    assert_eq!(fixture.prepare(&own.0).await.unwrap().resources.pids_limit, Some(7), "the request's own wins");
    fixture.config.resources.pids_limit = None;
    fixture.pod.runtime_handler = "free".to_owned();
    assert_eq!(fixture.prepare(&own.0).await.unwrap().resources.pids_limit, None);
    own.finish(&plan).await;
}

#[tokio::test]
async fn an_out_of_memory_kill_is_seen() {
    let own = Own::new();
    let plan = own.create(Resources { memory_limit: Some(8 << 20), ..Resources::default() }).await;
    assert_eq!(own.0.limitation(&plan).await, None);
    let mut child = spawn(&plan, "exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    child.wait().unwrap();
    let limitation = own.0.limitation(&plan).await.unwrap();
    assert_eq!(limitation.reason.as_deref(), Some("OOMKilled"));
    assert!(limitation.message.contains("8388608"), "{}", limitation.message);
    own.finish(&plan).await;
}

#[tokio::test]
async fn an_out_of_memory_kill_in_a_cgroup_of_the_containers_own_is_seen() {
    let own = Own::new();
    let plan = own.create(Resources { memory_limit: Some(8 << 20), ..Resources::default() }).await;
    let (memory, _) = own.0.host.dir(&plan.cgroups.dirs, Controller::Memory).unwrap();
    let inner = memory.join("inner");
    fs::create_dir(&inner).unwrap();
    let mut nested = plan.clone();
    nested.cgroups.dirs = vec![inner];
    spawn(&nested, "dd if=/dev/zero of=/dev/null bs=64M count=1").wait().unwrap();
    // v2 kills, and counts, all of a container.
    assert!(own.0.oom_kills(&plan.cgroups).unwrap() >= 1);
    assert_eq!(own.0.limitation(&plan).await.unwrap().reason.as_deref(), Some("OOMKilled"));
    own.finish(&plan).await;
}

#[tokio::test]
async fn updates_are_all_or_nothing() {
    let own = Own::new();
    let plan = own.create(limits()).await;
    let grow = Resources {
        memory_limit: Some(128 << 20),
        cpu_quota: Some(20_000),
        cpu_period: Some(50_000),
        ..Resources::default()
    };
    own.0.update(&plan, &grow, true).await.unwrap();
    let mut grown = plan.clone();
    grown.resources = update::merge(&plan.resources, &grow);
    let shrink = Resources { memory_limit: Some(32 << 20), cpu_shares: Some(2048), ..Resources::default() };
    own.0.update(&grown, &shrink, true).await.unwrap();
    assert_eq!(own.limit(&plan, Controller::Memory, "memory.limit_in_bytes", "memory.max"), "33554432");
    if own.0.unified() {
        assert_eq!(own.read(&plan, Controller::Cpu, "cpu.max"), "20000 50000");
    } else {
        assert_eq!(own.read(&plan, Controller::Memory, "memory.memsw.limit_in_bytes"), "33554432");
        assert_eq!(own.read(&plan, Controller::Cpu, "cpu.cfs_period_us"), "50000");
    }
    let shares = || own.limit(&plan, Controller::Cpu, "cpu.shares", "cpu.weight");
    let before = shares();
    // The CPU that does not exist is refused after the shares were written.
    let bad = Resources { cpu_shares: Some(99), cpuset_cpus: Some("5000".to_owned()), ..Resources::default() };
    assert!(own.0.update(&grown, &bad, true).await.is_err());
    assert_eq!(shares(), before);
    own.finish(&plan).await;
}

#[tokio::test]
async fn limits_change_while_a_container_is_frozen() {
    let own = Own::new();
    let plan = own.create(limits()).await;
    let mut child = spawn(&plan, "exec sleep 100");
    let dir = plan.cgroups.dirs.last().unwrap().clone();
    until("the process", || kill::processes(&dir).unwrap().len() == 1).await;
    let (freezer, version) = own.0.host.dir(&plan.cgroups.dirs, Controller::Freezer).unwrap();
    let (file, frozen) = match version {
        Version::V1 => ("freezer.state", "FROZEN"),
        Version::V2 => ("cgroup.freeze", "1"),
    };
    file::write(&freezer.join(file), frozen).unwrap();
    let shrink = Resources { memory_limit: Some(32 << 20), cpu_shares: Some(2048), ..Resources::default() };
    own.0.update(&plan, &shrink, true).await.unwrap();
    assert_eq!(own.limit(&plan, Controller::Memory, "memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(file::read(&freezer.join(file)).unwrap(), frozen, "it is still frozen");
    own.0.kill(&plan.cgroups).await.unwrap();
    child.wait().unwrap();
    own.finish(&plan).await;
}

#[tokio::test]
async fn a_limit_below_the_use_is_refused_and_changes_nothing() {
    let own = Own::new();
    let plan = own.create(limits()).await;
    // The shell keeps 16 MB in a variable.
    let mut child = spawn(&plan, "x=$(head -c 16000000 /dev/zero | tr \"\\\\0\" a); sleep 100");
    let used = || {
        let mut usage = Usage::default();
        own.0.usage(&plan, &mut usage);
        usage.memory.rss.unwrap_or_default() > 16_000_000
    };
    until("the use of memory", used).await;
    let shares = || own.limit(&plan, Controller::Cpu, "cpu.shares", "cpu.weight");
    let before = shares();
    let bad = Resources { memory_limit: Some(4 << 20), cpu_shares: Some(99), ..Resources::default() };
    let error = own.0.update(&plan, &bad, true).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    assert_eq!(shares(), before);
    assert_eq!(own.limit(&plan, Controller::Memory, "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(child.try_wait().unwrap(), None, "the container lives");
    own.0.kill(&plan.cgroups).await.unwrap();
    child.wait().unwrap();
    own.finish(&plan).await;
}

#[tokio::test]
async fn devices_that_are_not_allowed_cannot_be_opened() {
    let own = Own::new();
    let mut plan = own.plan(Resources::default()).await;
    let rule = |minor| DeviceRule {
        allow: true,
        kind: Some(DeviceKind::Char),
        major: Some(1),
        minor: Some(minor),
        access: "rwm".to_owned(),
    };
    plan.resources.devices = vec![rule(3)];
    own.0.create(&plan.cgroups, &plan.resources).unwrap();
    if !own.0.unified() {
        assert_eq!(own.read(&plan, Controller::Devices, "devices.list"), "c 1:3 rwm");
    }
    let status =
        spawn(&plan, "echo > /dev/null || exit 1; cat /dev/zero | head -c 1 | grep -q . && exit 2; exit 0").wait();
    assert_eq!(status.unwrap().code(), Some(0));
    let status = spawn(&plan, "head -c 1 /dev/zero").wait();
    assert_ne!(status.unwrap().code(), Some(0));
    own.finish(&plan).await;
}

#[tokio::test]
async fn orphans_are_removed_when_the_daemon_comes_back() {
    let own = Own::new();
    let known = own.create(Resources::default()).await;
    let orphan = own.create(Resources::default()).await;
    let mut child = spawn(&orphan, "sleep 100");
    let dir = orphan.cgroups.dirs[0].clone();
    until("the process", || !kill::processes(&dir).unwrap().is_empty()).await;
    let container = known.cgroups.dirs[0].file_name().unwrap().to_str().and_then(ContainerId::parse).unwrap();
    let records = Known { containers: [container].into(), ..Known::default() };
    own.0.recover(&records).await.unwrap();
    child.wait().unwrap();
    assert!(known.cgroups.dirs.iter().all(|dir| dir.exists()));
    assert!(orphan.cgroups.dirs.iter().all(|dir| !dir.exists()));
    own.finish(&known).await;
}

#[tokio::test]
async fn many_containers_come_and_go_beside_each_other() {
    let own = std::sync::Arc::new(Own::new());
    let mut fixture = Fixture::new();
    let mut tasks = Vec::new();
    for _ in 0..24 {
        fixture.id = ContainerId::random();
        let mut plan = LaunchPlan::default();
        plan.resources.devices = all_devices();
        fixture.prepare_into(&own.0, &mut plan).await.unwrap();
        let own = std::sync::Arc::clone(&own);
        tasks.push(tokio::spawn(async move {
            for _ in 0..5 {
                own.0.create(&plan.cgroups, &plan.resources).unwrap();
                own.0.remove(&plan.cgroups).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(own.is_gone());
}

#[tokio::test]
async fn kubelets_parent_stays() {
    let own = Own::new();
    let parent = format!("{}-kubepods", own.0.base);
    let mut fixture = Fixture::new();
    fixture.pod.cgroup_parent = Some(format!("/{parent}/burstable/pod1"));
    let mut plan = LaunchPlan::default();
    plan.resources.devices = all_devices();
    fixture.prepare_into(&own.0, &mut plan).await.unwrap();
    let mount = own.0.host.trees[0].mount.join(&parent);
    assert_eq!(plan.cgroups.dirs[0], mount.join("burstable/pod1").join(&fixture.id));
    own.0.create(&plan.cgroups, &plan.resources).unwrap();
    own.0.remove(&plan.cgroups).await.unwrap();
    for dir in &plan.cgroups.dirs {
        assert!(!dir.exists() && dir.parent().unwrap().exists());
        for parent in dir.ancestors().skip(1).take(3) {
            fs::remove_dir(parent).unwrap();
        }
    }
}

#[tokio::test]
async fn parents_are_checked_with_the_pod() {
    let own = Own::new();
    for (parent, kind) in [
        ("relative", Kind::InvalidArgument),
        ("/", Kind::InvalidArgument),
        ("/a/../b", Kind::InvalidArgument),
        ("/a//b", Kind::InvalidArgument),
        ("kubepods-pod1.slice", Kind::InvalidArgument),
    ] {
        let mut fixture = Fixture::new();
        fixture.pod.cgroup_parent = Some(parent.to_owned());
        assert_eq!(fixture.prepare_pod(&own.0).await.unwrap_err().kind(), kind, "{parent}");
    }
    for bad in ["", "a/b", "..", "a b"] {
        let config = CgroupConfig { base: bad.to_owned(), ..CgroupConfig::default() };
        assert_eq!(Cgroups::discover(&config).unwrap_err().kind(), Kind::InvalidArgument);
    }
}

#[test]
fn the_systemd_driver_says_what_it_needs() {
    let host = Host::discover().unwrap();
    let config = CgroupConfig { driver: CgroupDriver::Systemd, ..CgroupConfig::default() };
    match Cgroups::with(host.clone(), &config) {
        Ok(_) => assert!(host.unified()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("v2") || text.contains("PID 1"), "{text}");
            assert_eq!(error.outward().kind(), Kind::FailedPrecondition, "{text}");
        }
    }
}

#[tokio::test]
async fn absurd_limits_are_refused() {
    let own = Own::new();
    let one = |file: &str| [(file.to_owned(), "1".to_owned())].into();
    let bad = [
        Resources { memory_limit: Some(-2), ..Resources::default() },
        Resources { memory_limit: Some(0), ..Resources::default() },
        Resources { memory_limit: Some(1 << 20), memory_swap: Some(1 << 19), ..Resources::default() },
        Resources { memory_swap: Some(1 << 20), ..Resources::default() },
        Resources { cpu_quota: Some(10), ..Resources::default() },
        Resources { cpu_quota: Some(-5), ..Resources::default() },
        Resources { cpu_period: Some(1), ..Resources::default() },
        Resources { cpu_shares: Some(1), ..Resources::default() },
        Resources { cpuset_cpus: Some("0-".to_owned()), ..Resources::default() },
        Resources { cpuset_mems: Some("a".to_owned()), ..Resources::default() },
        Resources { pids_limit: Some(0), ..Resources::default() },
        Resources { hugepages: [("3MB".to_owned(), 0)].into(), ..Resources::default() },
        Resources { unified: one("cgroup.procs"), ..Resources::default() },
        Resources { unified: one("../memory.max"), ..Resources::default() },
        Resources { unified: one("memory"), ..Resources::default() },
    ];
    for resources in bad {
        let mut fixture = Fixture::new();
        fixture.config.resources = resources.clone();
        let error = fixture.prepare(&own.0).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{resources:?}: {error}");
    }
}

#[tokio::test]
async fn huge_pages_are_limited_wherever_the_controller_is() {
    let own = Own::new();
    let Some(size) = own.0.host.hugepages.first().cloned() else { panic!("this host has no huge pages") };
    let limit = |bytes| Resources { hugepages: [(size.clone(), bytes)].into(), ..Resources::default() };
    let Some(tree) = own.0.host.tree(Controller::Hugetlb) else {
        let mut fixture = Fixture::new();
        fixture.config.resources = limit(0);
        fixture.prepare(&own.0).await.expect("no pages are what a host without the controller gives");
        fixture.config.resources = limit(1 << 30);
        assert_eq!(fixture.prepare(&own.0).await.unwrap_err().kind(), Kind::FailedPrecondition);
        return;
    };
    let name = match tree.version {
        Version::V1 => format!("hugetlb.{size}.limit_in_bytes"),
        Version::V2 => format!("hugetlb.{size}.max"),
    };
    let plan = own.create(limit(1 << 30)).await;
    assert_eq!(own.read(&plan, Controller::Hugetlb, &name), "1073741824");
    own.0.remove(&plan.cgroups).await.unwrap();
    let plan = own.create(limit(0)).await;
    own.finish(&plan).await;
}

/// A pod's way through systemd, with a sleeping program as its shim. Without systemd as PID 1 and cgroup v2 there is
/// only the refusal to see.
#[tokio::test]
async fn a_pod_lives_in_a_scope_that_a_reload_leaves_alone() {
    let base = format!("tripodtest{}", std::process::id());
    let config = CgroupConfig { base: base.clone(), driver: CgroupDriver::Systemd, oom_group: true };
    let cgroups = match Cgroups::discover(&config) {
        Ok(cgroups) => cgroups,
        Err(error) => return assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}"),
    };
    let mut fixture = Fixture::new();
    fixture.pod.cgroup_parent = Some(format!("{base}-pod1.slice"));
    let mut shim = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut setup = PodSetup { shim: shim.id().cast_signed(), ..PodSetup::default() };
    fixture.prepare_pod_into(&cgroups, &mut setup).await.unwrap();
    let mut plan = LaunchPlan::default();
    fixture.config.resources =
        Resources { memory_limit: Some(64 << 20), cpu_shares: Some(512), ..Resources::default() };
    let zero =
        DeviceRule { allow: true, kind: Some(DeviceKind::Char), major: Some(1), minor: Some(5), access: "r".into() };
    plan.resources.devices = vec![zero];
    fixture.prepare_into(&cgroups, &mut plan).await.unwrap();
    let dir = plan.cgroups.dirs[0].clone();
    let scope = dir.parent().unwrap().to_owned();
    let place = format!("{base}.slice/{base}-pod1.slice/{base}-{}.scope", fixture.pod_id);
    assert!(scope.ends_with(&place), "{} {place}", scope.display());
    assert_eq!(file::read(&scope.join("shim/cgroup.procs")).unwrap(), shim.id().to_string());

    cgroups.create(&plan.cgroups, &plan.resources).unwrap();
    let mut child = spawn(&plan, "exec sleep 1000");
    until("the process", || kill::processes(&dir).unwrap().len() == 1).await;
    let limits = || ["memory.max", "cpu.weight", "memory.swap.max"].map(|name| file::read(&dir.join(name)).unwrap());
    assert_eq!(limits(), ["67108864", "59", "0"]);
    let systemctl = |arguments: &[&str]| {
        let output = Command::new("systemctl").args(arguments).output().expect("systemctl");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let unit = scope.file_name().unwrap().to_str().unwrap();
    systemctl(&["set-property", "--runtime", unit, "MemoryMax=1G"]);
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", unit, "MemoryMax=infinity"]);
    assert_eq!(systemctl(&["show", "--property", "Delegate", "--value", unit]), "yes");
    assert_eq!(limits(), ["67108864", "59", "0"]);
    let read = |device: &str| spawn(&plan, &format!("head -c 1 {device} || exit 9")).wait().unwrap().code();
    assert_eq!((read("/dev/zero"), read("/dev/urandom")), (Some(0), Some(9)));
    let grow = Resources { memory_limit: Some(96 << 20), ..Resources::default() };
    cgroups.update(&plan, &grow, true).await.unwrap();
    assert_eq!(limits()[0], "100663296");

    // The end of a container leaves its counters, and the scope.
    cgroups.kill(&plan.cgroups).await.unwrap();
    child.wait().unwrap();
    systemctl(&["daemon-reload"]);
    assert_eq!(cgroups.oom_kills(&plan.cgroups), Some(0));
    cgroups.remove(&plan.cgroups).await.unwrap();
    assert!(!dir.exists() && scope.exists());
    shim.kill().unwrap();
    shim.wait().unwrap();
    cgroups.cleanup_pod(&fixture.pod_id).await.unwrap();
    cgroups.cleanup_pod(&fixture.pod_id).await.unwrap();
    until("the end of the scope", || !scope.exists()).await;
    // Kubelet removes its slices.
    systemctl(&["stop", &format!("{base}.slice")]);
    until("the end of the slice", || !scope.parent().unwrap().parent().unwrap().exists()).await;
}

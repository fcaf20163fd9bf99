//! What is set, changed and refused.

use super::*;

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
    until("that it is frozen", || file::read(&freezer.join(file)).unwrap() == frozen).await;
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

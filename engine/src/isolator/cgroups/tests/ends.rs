//! How containers end: killed, out of memory, removed, left over.

use super::*;

/// Makes new processes without end, never so many that one cannot be made: its shell would end.
const FORKS: &str = "while :; do n=0; while [ $n -lt 50 ]; do (sleep 0.01; sleep 0.01) & n=$((n+1)); done; wait; done";

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
    let mut child = spawn(&inner, FORKS);
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
async fn forks_do_not_outrun_the_kill() {
    let own = Own::new();
    let plan = own.create(Resources { pids_limit: Some(200), ..Resources::default() }).await;
    let mut child = spawn(&plan, FORKS);
    let dir = plan.cgroups.dirs[0].clone();
    until("a few forks", || kill::processes(&dir).unwrap().len() > 20).await;
    own.0.kill(&plan.cgroups).await.unwrap();
    child.wait().unwrap();
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

//! Commands in containers (contract: lines 25 and 28).

use std::{
    fs,
    time::{Duration, Instant},
};

use tonic::Code;
use tripod_cri_api::v1::{HugepageLimit, Int64Value, KeyValue, LinuxContainerResources};
use tripod_tests::{Cri, Node, eventually, host_pod, processes, security_of, shell, tests, within, zombies};

use crate::resources::{group, unified};

tests![
    exit_codes_and_streams_are_data,
    a_timeout_kills_the_process_tree,
    output_ends_at_the_limit_and_blocks_nobody,
    a_child_that_keeps_stdout_does_not_hang_the_call,
    a_command_inherits_from_its_container,
    many_commands_at_once_leave_no_zombies,
    a_command_sees_no_descriptor_of_ours,
    a_program_that_is_not_there_is_told,
    a_command_ends_when_nobody_waits_for_it,
    a_command_follows_its_container_into_cgroups_of_its_own,
];

async fn running(node: &mut Node) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    (cri, id)
}

async fn exit_codes_and_streams_are_data(node: &mut Node) {
    let (cri, id) = running(node).await;
    for code in [0, 1, 126, 255] {
        let answer =
            cri.exec(&id, &["/bin/sh", "-c", &format!("echo out; echo err >&2; exit {code}")], 10).await.unwrap();
        assert_eq!(
            (answer.exit_code, answer.stdout.as_slice(), answer.stderr.as_slice()),
            (code, &b"out\n"[..], &b"err\n"[..])
        );
    }
    assert_eq!(cri.exec(&id, &["/bin/sh", "-c", "kill -9 $$"], 10).await.unwrap().exit_code, 137);
    // No time-out means no time-out; the command is looked up along PATH; standard input is empty.
    assert_eq!(cri.exec(&id, &["cat"], 0).await.unwrap().stdout, b"");
}

async fn a_timeout_kills_the_process_tree(node: &mut Node) {
    let (cri, id) = running(node).await;
    let script = "sleep 2345 & setsid sleep 2345 & (trap '' TERM; sleep 2345 & wait) & sleep 2345";
    let begin = Instant::now();
    let error = cri.exec(&id, &["/bin/sh", "-c", script], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    let gone = async || processes(&["sleep", "2345"]).is_empty().then_some(());
    eventually("the end of all processes", Duration::from_secs(20), gone).await;
    assert_eq!(cri.sh(&id, "echo still here").await, "still here");
}

async fn output_ends_at_the_limit_and_blocks_nobody(node: &mut Node) {
    let (cri, id) = running(node).await;
    let script = "head -c 20000000 /dev/zero; echo done >&2";
    let answer = cri.exec(&id, &["/bin/sh", "-c", script], 50).await.unwrap();
    assert_eq!((answer.stderr.as_slice(), answer.exit_code), (&b"done\n"[..], 0));
    // The answer has to fit into a message of 16 MiB.
    assert!(((16 << 20) - 1024..16 << 20).contains(&answer.stdout.len()), "{}", answer.stdout.len());
}

async fn a_child_that_keeps_stdout_does_not_hang_the_call(node: &mut Node) {
    let (cri, id) = running(node).await;
    let call = cri.exec(&id, &["/bin/sh", "-c", "sleep 3000 & echo started"], 40);
    let answer = within("the call", Duration::from_secs(50), call).await.unwrap();
    assert_eq!(answer.stdout, b"started\n");
    let one = async || (processes(&["sleep", "3000"]).len() == 1).then_some(());
    eventually("the child, which runs on", Duration::from_secs(20), one).await;
}

/// 28.
async fn a_command_inherits_from_its_container(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = shell("main", "sleep 1000");
    config.envs = vec![KeyValue { key: "WORD".into(), value: "from the request".into() }];
    config.working_dir = "/tmp".into();
    let security = security_of(&mut config);
    security.run_as_user = Some(Int64Value { value: 1000 });
    security.capabilities =
        Some(tripod_cri_api::v1::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    security.no_new_privs = true;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &config).await.unwrap();
    assert_eq!(cri.sh(&id, "echo $WORD; echo $FROM_IMAGE; pwd; id -u").await, "from the request\nyes\n/tmp\n1000");
    assert_eq!(cri.sh(&id, "cat /proc/1/cgroup").await, cri.sh(&id, "cat /proc/self/cgroup").await);
    let shown = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:|Groups' ";
    let (own, first) = (
        cri.sh(&id, &format!("{shown} /proc/self/status")).await,
        cri.sh(&id, &format!("{shown} /proc/1/status")).await,
    );
    assert_eq!(own, first);
    let namespaces = "for n in mnt pid net ipc uts cgroup; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done";
    assert_eq!(cri.sh(&id, namespaces).await, "");
}

/// 28.
async fn many_commands_at_once_leave_no_zombies(node: &mut Node) {
    let (cri, id) = running(node).await;
    let calls =
        (0..40).map(|number| {
            let (cri, id) = (cri.clone(), id.clone());
            async move {
                cri.exec(&id, &["/bin/sh", "-c", &format!("sleep 0.1; exit {number}")], 30).await.unwrap().exit_code
            }
        });
    let codes = futures::future::join_all(calls).await;
    assert_eq!(codes, (0..40).collect::<Vec<_>>());
    eventually("no zombie", Duration::from_secs(20), async || (zombies() == 0).then_some(())).await;
}

async fn a_command_sees_no_descriptor_of_ours(node: &mut Node) {
    let (cri, id) = running(node).await;
    assert_eq!(cri.sh(&id, "exec ls /proc/self/fd").await, "0\n1\n2\n3", "3 is the folder itself");
    let hosts = fs::read_dir(node.root()).unwrap().count();
    assert!(hosts > 0);
    assert_eq!(
        cri.sh(&id, "ls -d /proc/self/cwd/..; ls /proc/self/root/").await,
        cri.sh(&id, "ls -d /..; ls /").await.replacen("/..", "/proc/self/cwd/..", 1)
    );
}

async fn a_program_that_is_not_there_is_told(node: &mut Node) {
    let (cri, id) = running(node).await;
    let error = cri.exec(&id, &["/no/such/program"], 5).await.unwrap_err();
    assert!(error.message().contains("/no/such/program"), "{error}");
    assert_eq!(cri.sh(&id, "echo fine").await, "fine");
    assert_eq!(cri.exec(&id, &[], 5).await.unwrap_err().code(), Code::InvalidArgument);
}

/// The client hangs up: the time-out still holds, and nothing runs on for ever.
async fn a_command_ends_when_nobody_waits_for_it(node: &mut Node) {
    let (cri, id) = running(node).await;
    let call = cri.exec(&id, &["/bin/sh", "-c", "sleep 3456 & sleep 3456"], 2);
    assert!(tokio::time::timeout(Duration::from_millis(700), call).await.is_err());
    let gone = async || processes(&["sleep", "3456"]).is_empty().then_some(());
    eventually("the end of the command", Duration::from_secs(20), gone).await;
}

/// A cgroup of the unified tree that gives controllers on to others holds no process: a container with a systemd or a
/// runtime inside has moved its own further down.
async fn a_command_follows_its_container_into_cgroups_of_its_own(node: &mut Node) {
    let cri = node.ready().await;
    let mut config_of = shell("main", "exec sleep 7301");
    if !unified() {
        // Beside hierarchies of v1 only who has huge pages is in the unified tree.
        let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
        if !controllers.contains("hugetlb") {
            println!("the unified tree of this host has no controllers for containers: nobody is kept from a cgroup");
            return;
        }
        let hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 64 << 20 }];
        let limits = LinuxContainerResources { hugepage_limits, ..Default::default() };
        config_of.linux.as_mut().unwrap().resources = Some(limits);
    }
    let (_, id) = cri.run_in_pod(&host_pod("main"), &config_of).await.unwrap();
    let limit = Duration::from_secs(20);
    let pid = eventually("the program", limit, async || processes(&["sleep", "7301"]).first().copied()).await;
    let group = group(&id, "unified");
    let place = async || cri.sh(&id, "sed -n s/^0:://p /proc/self/cgroup").await;
    assert_eq!(place().await, "/");
    let inner = format!("{group}/inner");
    fs::create_dir(&inner).unwrap();
    fs::write(format!("{inner}/cgroup.procs"), pid.to_string()).unwrap();
    let procs = format!("{group}/cgroup.procs");
    eventually("the end of the command", limit, async || fs::read_to_string(&procs).unwrap().is_empty().then_some(()))
        .await;
    let controllers = fs::read_to_string(format!("{group}/cgroup.controllers")).unwrap();
    let first = controllers.split_whitespace().next().expect("a controller");
    fs::write(format!("{group}/cgroup.subtree_control"), format!("+{first}")).unwrap();
    assert_eq!(place().await, "/inner");
    let cri = node.restart().await;
    assert_eq!(cri.sh(&id, "sed -n s/^0:://p /proc/self/cgroup").await, "/inner");
    cri.stop(&id, 0).await.unwrap();
}

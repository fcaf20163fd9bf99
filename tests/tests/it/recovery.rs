//! The daemon is killed, a shim is killed, the node is restarted (contract: line 7; and what others fail at).

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tonic::Code;
use tripod_cri_api::v1::{ContainerState, PodSandboxState};
use tripod_tests::{BUSYBOX, Cri, Node, cgroup, eventually, host_pod, log_text, mount, pod, shell, tests, within};

tests![
    nothing_changes_when_the_daemon_is_replaced,
    logs_have_no_hole,
    ends_that_nobody_saw_are_known,
    a_created_container_starts_under_the_next_daemon,
    a_stop_that_was_cut_off_can_be_repeated,
    a_pod_whose_shim_was_killed_is_not_ready,
    a_shim_that_dies_unseen_is_found_out,
    kills_in_the_midst_of_making_leave_nothing,
    after_a_reboot_pods_are_not_ready_and_go_cleanly,
    a_command_ends_with_the_daemon_that_ran_it,
];

/// What has no limit of its own has this long.
const LIMIT: Duration = Duration::from_secs(20);

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

async fn nothing_changes_when_the_daemon_is_replaced(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = pod("same");
    config.annotations.insert("note".into(), "kept".into());
    let (id, running) = cri.run_in_pod(&config, &shell("running", "sleep 1000")).await.unwrap();
    let exited = cri.run(&id, &config, &shell("exited", "exit 3")).await.unwrap();
    cri.exited(&exited).await;
    let created = cri.create(&id, &config, &shell("created", "true")).await.unwrap();
    let state = async |cri: &Cri| {
        let mut all = vec![format!("{:?}", cri.pod(&id).await.unwrap()), format!("{:?}", cri.all_images().await)];
        for container in [&running, &exited, &created] {
            all.push(format!("{:?}", cri.status(container).await.unwrap()));
        }
        all
    };
    // Maps print in any order.
    let sorted = |mut lines: Vec<String>| {
        for line in &mut lines {
            let mut words: Vec<String> = line.split([' ', ',', '{', '}']).map(str::to_owned).collect();
            words.sort();
            *line = words.join(" ");
        }
        lines
    };
    let before = sorted(state(&cri).await);
    for _ in 0..2 {
        let cri = node.restart().await;
        assert_eq!(sorted(state(&cri).await), before);
    }
    let cri = node.restart().await;
    assert_eq!(cri.sh(&running, "echo here; ping -c1 -w5 192.0.2.10 >/dev/null && echo net").await, "here\nnet");
    assert_eq!(cri.run_pod(&config).await.unwrap(), id, "the same request still means this pod");
    // And a daemon that ends politely leaves its pods alone, too.
    node.stop().await;
    let cri = node.start().await;
    assert_eq!(cri.sh(&running, "echo here").await, "here");
    cri.stop(&running, 0).await.unwrap();
}

async fn logs_have_no_hole(node: &mut Node) {
    let mut cri = node.ready().await;
    let script = "i=0; while :; do i=$((i+1)); echo $i; usleep 500; done";
    let (_, id) = cri.run_in_pod(&host_pod("log"), &shell("main", script)).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        node.kill();
        tokio::time::sleep(Duration::from_millis(150)).await;
        cri = node.start().await;
        assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    }
    let path = cri.status(&id).await.unwrap().log_path;
    let enough = async || (fs::read_to_string(&path).unwrap().lines().count() > 101).then_some(());
    eventually("a hundred lines", LIMIT, enough).await;
    cri.stop(&id, 0).await.unwrap();
    let log = fs::read_to_string(path).unwrap();
    let numbers: Vec<u64> = log_text(&log).lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 100 && numbers.iter().copied().eq(1..=numbers.len() as u64), "{} lines", numbers.len());
}

async fn ends_that_nobody_saw_are_known(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("ends");
    let signal = node.folder().join("signal");
    fs::create_dir(&signal).unwrap();
    let waiting = |name: &str, rest: &str| {
        let mut config = shell(name, &format!("until [ -e /signal/go ]; do usleep 20000; done; {rest}"));
        config.mounts = vec![mount(&signal.to_string_lossy(), "/signal")];
        config
    };
    let (id, soon) = cri.run_in_pod(&config, &waiting("soon", "echo last; exit 7")).await.unwrap();
    let killed = cri.run(&id, &config, &waiting("killed", "/bin/sh -c 'kill -9 $$'; exit $?")).await.unwrap();
    let both = async || (find(&["/signal/go"]).len() >= 2).then_some(());
    eventually("both programs", LIMIT, both).await;
    node.kill();
    let gone = now();
    fs::write(signal.join("go"), "").unwrap();
    eventually("both ends", LIMIT, async || find(&["/signal/go"]).is_empty().then_some(())).await;
    // The shim notes the time when it has seen the end.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let back = now();
    let cri = node.start().await;
    for (container, code) in [(&soon, 7), (&killed, 137)] {
        let status = cri.status(container).await.unwrap();
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, code));
        assert!(gone < status.finished_at && status.finished_at < back, "when it ended, not when it was noticed");
    }
    let log = fs::read_to_string(cri.status(&soon).await.unwrap().log_path).unwrap();
    assert_eq!(log_text(&log), "last\n");
    assert_eq!(cri.pod(&id).await.unwrap().state(), PodSandboxState::SandboxReady);
}

async fn a_created_container_starts_under_the_next_daemon(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("created");
    let id = cri.run_pod(&config).await.unwrap();
    let container = cri.create(&id, &config, &shell("main", "cat /etc/motd")).await.unwrap();
    let cri = node.restart().await;
    assert_eq!(cri.create(&id, &config, &shell("main", "cat /etc/motd")).await.unwrap(), container);
    cri.start(&container).await.unwrap();
    let status = cri.exited(&container).await;
    assert_eq!(log_text(&fs::read_to_string(status.log_path).unwrap()), "second\n");
}

/// Others leave a pod terminating for ever.
async fn a_stop_that_was_cut_off_can_be_repeated(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("stopping");
    let (id, container) =
        cri.run_in_pod(&config, &shell("deaf", "trap '' TERM; while :; do sleep 0.05; done")).await.unwrap();
    for cut_off in ["container", "pod"] {
        let cri = if cut_off == "pod" { node.start().await } else { cri.clone() };
        let call = tokio::spawn({
            let (cri, id, container) = (cri.clone(), id.clone(), container.clone());
            async move { if cut_off == "pod" { cri.stop_pod(&id).await } else { cri.stop(&container, 30).await } }
        });
        tokio::time::sleep(Duration::from_millis(if cut_off == "pod" { 3 } else { 300 })).await;
        node.kill();
        let _ = call.await.unwrap();
    }
    let cri = node.start().await;
    within("the stop", Duration::from_secs(30), cri.stop(&container, 1)).await.unwrap();
    assert_eq!(cri.status(&container).await.unwrap().exit_code, 137);
    within("the stop of the pod", Duration::from_secs(30), cri.stop_pod(&id)).await.unwrap();
    assert_eq!(cri.pod(&id).await.unwrap().state(), PodSandboxState::SandboxNotready);
    cri.remove_pod(&id).await.unwrap();
}

/// PIDs of processes whose command line has all of these words.
fn find(words: &[&str]) -> Vec<u32> {
    let folders = fs::read_dir("/proc").unwrap().flatten();
    folders
        .filter_map(|folder| {
            let line = fs::read(folder.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let pid = folder.file_name().to_str()?.parse().ok()?;
            words.iter().all(|word| line.contains(word)).then_some(pid)
        })
        .collect()
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

async fn a_pod_whose_shim_was_killed_is_not_ready(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("shim");
    let (id, container) = cri.run_in_pod(&config, &shell("main", "sleep 7777 & sleep 7777")).await.unwrap();
    let shims = find(&["tripod-shim", &id]);
    assert_eq!(shims.len(), 1);
    kill(shims[0]);
    let status = cri.exited(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    assert!(!status.message.is_empty() && status.finished_at >= status.started_at);
    assert_eq!(cri.pod(&id).await.unwrap().state(), PodSandboxState::SandboxNotready);
    eventually("the end of its processes", LIMIT, async || find(&["sleep", "7777"]).is_empty().then_some(())).await;
    let error = cri.create(&id, &config, &shell("next", "true")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    cri.remove_pod(&id).await.unwrap();
    cri.run_pod(&config).await.unwrap();
}

async fn a_shim_that_dies_unseen_is_found_out(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("unseen");
    let (id, container) = cri.run_in_pod(&config, &shell("main", "sleep 7778")).await.unwrap();
    node.kill();
    kill(find(&["tripod-shim", &id])[0]);
    let cri = node.start().await;
    let status = cri.exited(&container).await;
    assert_eq!(status.exit_code, 137);
    assert_eq!(cri.pod(&id).await.unwrap().state(), PodSandboxState::SandboxNotready);
    eventually("the end of its process", LIMIT, async || find(&["sleep", "7778"]).is_empty().then_some(())).await;
    cri.stop_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    drop(cri);
}

async fn kills_in_the_midst_of_making_leave_nothing(node: &mut Node) {
    let mut cri = node.ready().await;
    for round in 0..12u64 {
        let making = tokio::spawn({
            let cri = cri.clone();
            async move {
                for number in 0.. {
                    let name = format!("pod-{round}-{number}");
                    let config = if number % 2 == 0 { pod(&name) } else { host_pod(&name) };
                    if cri.run_in_pod(&config, &shell("main", "sleep 1000")).await.is_err() {
                        return;
                    }
                }
            }
        });
        // Another instant of the operation each time.
        tokio::time::sleep(Duration::from_micros(5_000 + 3_700 * round)).await;
        node.kill();
        making.await.unwrap();
        cri = node.start().await;
        for pod in cri.pods().await {
            let status = cri.pod(&pod.id).await.unwrap();
            assert_eq!(status.state(), PodSandboxState::SandboxReady, "a pod that is known works");
            cri.remove_pod(&pod.id).await.unwrap();
        }
        assert!(cri.containers().await.is_empty());
        let what = format!("round {round}: the end of shims that nobody knows");
        eventually(&what, LIMIT, async || find(&["tripod-shim"]).is_empty().then_some(())).await;
        let what = format!("round {round}: the end of network namespaces");
        let none = async || (fs::read_dir("/run/netns").map_or(0, Iterator::count) == 0).then_some(());
        eventually(&what, LIMIT, none).await;
    }
}

/// What a reboot does to a node: no process, nothing in /run, no mount, link or cgroup, and another boot ID.
async fn reboot(node: &Node) {
    for pid in [find(&["tripod-shim"]), find(&["sleep"])].concat() {
        kill(pid);
    }
    eventually("the end of all containers", LIMIT, async || find(&["sleep"]).is_empty().then_some(())).await;
    let run = |program: &str, arguments: &[&str]| Command::new(program).args(arguments).status().unwrap().success();
    for file in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let path = file.path();
        run("umount", &[path.to_str().unwrap()]);
        fs::remove_file(path).unwrap();
    }
    run("nft", &["flush", "ruleset"]);
    for link in fs::read_dir("/sys/class/net").unwrap().flatten() {
        let name = link.file_name().into_string().unwrap();
        if name.starts_with("veth") || name == "tripod0" {
            run("ip", &["link", "del", &name]);
        }
    }
    eventually("no cgroup", LIMIT, async || cgroup::remove("tripod").ok()).await;
    fs::remove_dir_all(node.state()).unwrap();
    let boot_id = node.folder().join("boot_id");
    fs::write(&boot_id, "11111111-2222-3333-4444-555555555555\n").unwrap();
    assert!(run("mount", &["--bind", boot_id.to_str().unwrap(), "/proc/sys/kernel/random/boot_id"]));
}

async fn after_a_reboot_pods_are_not_ready_and_go_cleanly(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("before");
    let (id, running) = cri.run_in_pod(&config, &shell("running", "echo before; sleep 1000")).await.unwrap();
    let exited = cri.run(&id, &config, &shell("exited", "exit 3")).await.unwrap();
    cri.exited(&exited).await;
    let created = cri.create(&id, &config, &shell("created", "true")).await.unwrap();
    let (host, _) = cri.run_in_pod(&host_pod("host"), &shell("main", "sleep 1000")).await.unwrap();
    let ip = cri.pod(&id).await.unwrap().network.unwrap().ip;
    let path = cri.status(&running).await.unwrap().log_path;
    let said = async || fs::read_to_string(&path).ok()?.ends_with("before\n").then_some(());
    eventually("the first line", LIMIT, said).await;
    node.kill();
    reboot(node).await;

    let cri = node.start().await;
    for pod in [&id, &host] {
        assert_eq!(cri.pod(pod).await.unwrap().state(), PodSandboxState::SandboxNotready);
    }
    let status = cri.status(&running).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
    assert!(status.finished_at >= status.started_at && !status.message.is_empty());
    assert_eq!(log_text(&fs::read_to_string(&status.log_path).unwrap()), "before\n");
    assert_eq!(cri.status(&exited).await.unwrap().exit_code, 3);
    let error = cri.start(&created).await.unwrap_err();
    assert!(!error.message().is_empty());
    let error = cri.exec(&running, &["true"], 5).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    // The address is not given to anybody else while the old pod holds it.
    let next = cri.run_pod(&pod("next")).await.unwrap();
    assert_ne!(cri.pod(&next).await.unwrap().network.unwrap().ip, ip);
    for pod in [&id, &host] {
        cri.stop_pod(pod).await.unwrap();
        cri.remove_pod(pod).await.unwrap();
    }
    // kubelet makes the same pod anew.
    if cri.image(BUSYBOX).await.is_none() {
        cri.pull(BUSYBOX).await.unwrap();
    }
    let (_, container) = cri.run_in_pod(&config, &shell("main", "sleep 1000")).await.unwrap();
    assert_eq!(cri.sh(&container, "cat /etc/motd").await, "second");
    node.clear(&cri).await;
    assert!(Command::new("umount").arg("/proc/sys/kernel/random/boot_id").status().unwrap().success());
    assert!(Path::new("/proc/sys/kernel/random/boot_id").exists());
}

/// The limit of a command is the daemon's; without it nobody would ever end the command.
async fn a_command_ends_with_the_daemon_that_ran_it(node: &mut Node) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    let call = tokio::spawn({
        let (cri, id) = (cri.clone(), id.clone());
        async move { cri.exec(&id, &["/bin/sh", "-c", "sleep 4567 & sleep 4567"], 60).await }
    });
    eventually("the command", LIMIT, async || (find(&["sleep", "4567"]).len() >= 2).then_some(())).await;
    let cri = node.restart().await;
    assert!(call.await.unwrap().is_err());
    let over = async || find(&["sleep", "4567"]).is_empty().then_some(());
    eventually("the end of the command", LIMIT, over).await;
    assert_eq!(cri.sh(&id, "echo fine").await, "fine");
}

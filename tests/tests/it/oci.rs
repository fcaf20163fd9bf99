//! RuntimeClass handlers, and containers that an OCI runtime makes (contract: lines 12 to 17, 20, 25 to 28 by another
//! way).

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use tonic::{Code, Status};
use tripod_cri_api::v1::{
    ContainerConfig, ContainerState, ContainerStatusRequest, LinuxContainerResources, NamespaceMode, PodSandboxConfig,
    StatusRequest, UpdateContainerResourcesRequest,
};
use tripod_tests::{Client, Cri, Node, Wanted, eventually, host_pod, log_text, pod, runtime, shell, tests, transports};

use crate::resources::unified;

tests![
    a_container_runs_and_ends,
    commands_run_in_it,
    it_shares_what_the_pod_has,
    a_terminal_is_attached_to,
    signals_reach_it,
    a_signal_right_after_the_start_is_not_lost,
    a_signal_is_kept_until_the_program_runs,
    limits_change,
    what_is_wrong_with_a_program_is_told,
    it_outlives_the_daemon,
    what_a_killed_daemon_was_making_goes,
    nothing_of_it_is_mounted_on_the_host,
    a_handler_that_is_not_there_is_refused,
    a_runtime_that_fails_is_quoted,
    a_runtime_that_hangs_is_ended,
    people_can_read_the_specification,
];

async fn ready(node: &mut Node) -> Cri {
    runtime::configure(&mut node.settings, runtime::HANDLER, &runtime::program());
    node.ready().await
}

async fn run_in(cri: &Cri, config: &PodSandboxConfig, container: &ContainerConfig) -> (String, String) {
    let pod = cri.run_pod_by(runtime::HANDLER, config).await.unwrap();
    let id = cri.run(&pod, config, container).await.unwrap();
    (pod, id)
}

async fn run(cri: &Cri, script: &str) -> (String, String) {
    run_in(cri, &host_pod("main"), &shell("main", script)).await
}

pub(crate) async fn log(cri: &Cri, id: &str) -> String {
    fs::read_to_string(cri.status(id).await.unwrap().log_path).unwrap()
}

async fn a_container_runs_and_ends(node: &mut Node) {
    let cri = ready(node).await;
    let (pod, id) = run(&cri, "echo out; echo err >&2; cat /proc/self/oom_score_adj; exit 7").await;
    let status = cri.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.finished_at >= status.started_at && status.started_at >= status.created_at);
    let log = log(&cri, &id).await;
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");
    // A program that is over before anybody looks, again and again, in the pod that is there.
    for number in 0..5 {
        let config = shell(&format!("short-{number}"), &format!("echo {number}; exit {number}"));
        let (status, text) = cri.outcome(&pod, &host_pod("main"), &config).await.unwrap();
        assert_eq!((status.exit_code, text), (number, format!("{number}\n")));
        cri.remove(&status.id).await.unwrap();
    }
    assert_eq!(cri.pod(&pod).await.unwrap().runtime_handler, runtime::HANDLER);
}

async fn commands_run_in_it(node: &mut Node) {
    let cri = ready(node).await;
    let mut config = shell("main", "export PS1=x; sleep 1000");
    config.envs.push(tripod_cri_api::v1::KeyValue { key: "NAME".into(), value: "value".into() });
    let (_, id) = run_in(&cri, &pod("main"), &config).await;
    let answer = cri.exec(&id, &["/bin/sh", "-c", "echo $NAME; echo err >&2; exit 5"], 10).await.unwrap();
    assert_eq!((answer.exit_code, &answer.stdout[..], &answer.stderr[..]), (5, &b"value\n"[..], &b"err\n"[..]));
    // A runtime calls a container started when its own process is about to execute the program, which executes another.
    eventually("the program", Duration::from_secs(10), async || {
        (cri.sh(&id, "cat /proc/1/comm").await.trim() == "sleep").then_some(())
    })
    .await;
    // The same namespaces, cgroups, rights and filter as the container's own process.
    let script = "for n in mnt pid net ipc uts cgroup; do readlink /proc/$P/ns/$n; done; cat /proc/$P/cgroup; \
                  grep -E '^(Cap|Seccomp|NoNewPrivs|Uid|Gid|Groups)' /proc/$P/status";
    let of = async |pid: &str| cri.sh(&id, &format!("P={pid}; {script}")).await;
    // Runtimes also join trees that tripod has no use for.
    let own = |text: String| {
        let strange = |line: &&str| line.contains("name=systemd") || line.starts_with("0::");
        text.lines().filter(|line| !strange(line)).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(own(of("self").await), own(of("1").await));
    let error = cri.exec(&id, &["/bin/sh", "-c", "sleep 1000"], 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

async fn it_shares_what_the_pod_has(node: &mut Node) {
    let cri = ready(node).await;
    let mut config = pod("main");
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
    let in_pod = |name: &str, script: &str| {
        let mut config = shell(name, script);
        let options = tripod_tests::security_of(&mut config).namespace_options.get_or_insert_default();
        options.pid = NamespaceMode::Pod.into();
        config
    };
    let (sandbox, id) = run_in(&cri, &config, &in_pod("main", "echo there >/dev/shm/file; sleep 1000")).await;
    let other = in_pod(
        "other",
        "hostname; cat /proc/1/comm; until grep there /dev/shm/file 2>/dev/null; do usleep 10000; done",
    );
    let (status, text) = cri.outcome(&sandbox, &config, &other).await.unwrap();
    assert_eq!((status.exit_code, text.as_str()), (0, "main\ntripod-reaper\nthere\n"));
    let address = cri.pod(&sandbox).await.unwrap().network.unwrap().ip;
    let addresses = cri.sh(&id, "ip -4 -o addr").await;
    assert!(addresses.contains(&address), "{address}: {addresses}");
}

async fn a_terminal_is_attached_to(node: &mut Node) {
    let cri = ready(node).await;
    let script = "test -t 0 && test -t 1 && test -t 2 && echo all; while read line; do echo \"got $line\"; done";
    let config = ContainerConfig { stdin: true, tty: true, ..shell("main", script) };
    let (_, id) = run_in(&cri, &host_pod("main"), &config).await;
    eventually("the first line", Duration::from_secs(10), async || {
        log_text(&log(&cri, &id).await).contains("all").then_some(())
    })
    .await;
    for transport in transports() {
        let url = cri.attach_url(&id, Wanted::TERMINAL).await.unwrap();
        let mut session = Client::new(transport, Wanted::TERMINAL).start(&url);
        session.write("word\n").await;
        session.read_until("got word\r\n").await;
        session.kill().await;
    }
    // Input without a terminal.
    let config = ContainerConfig { stdin: true, ..shell("piped", "read line; echo \"got $line\"; exit 4") };
    let sandbox = cri.pods().await.remove(0).id;
    let piped = cri.run(&sandbox, &host_pod("main"), &config).await.unwrap();
    let url = cri.attach_url(&piped, Wanted::ALL).await.unwrap();
    let mut session = Client::new(transports()[0], Wanted::ALL).start(&url);
    session.write("word\n").await;
    assert_eq!(cri.exited(&piped).await.exit_code, 4);
    assert_eq!(log_text(&log(&cri, &piped).await), "got word\n");
}

async fn signals_reach_it(node: &mut Node) {
    let cri = ready(node).await;
    let (pod, id) = run(&cri, "trap 'echo asked; exit 9' TERM; echo ready; while :; do usleep 10000; done").await;
    eventually("the trap", Duration::from_secs(10), async || log(&cri, &id).await.contains("ready").then_some(()))
        .await;
    cri.stop(&id, 30).await.unwrap();
    assert_eq!(cri.status(&id).await.unwrap().exit_code, 9);
    let config = shell("deaf", "trap '' TERM; sleep 1000 & while :; do usleep 10000; done");
    let deaf = cri.run(&pod, &host_pod("main"), &config).await.unwrap();
    cri.stop(&deaf, 0).await.unwrap();
    assert_eq!(cri.status(&deaf).await.unwrap().exit_code, 137);
}

async fn a_signal_right_after_the_start_is_not_lost(node: &mut Node) {
    let cri = ready(node).await;
    let pod = cri.run_pod_by(runtime::HANDLER, &host_pod("main")).await.unwrap();
    for number in 0..8 {
        let config = shell(&format!("main-{number}"), "trap 'exit 9' TERM; while :; do usleep 10000; done");
        let id = cri.run(&pod, &host_pod("main"), &config).await.unwrap();
        cri.stop(&id, 30).await.unwrap();
        assert_eq!(cri.status(&id).await.unwrap().exit_code, 9, "container {number}");
    }
}

/// What a runtime leaves behind may take long until it executes the program: here until it is told to. A signal before
/// that would be caught, and lost.
async fn a_signal_is_kept_until_the_program_runs(node: &mut Node) {
    let text = r#"while [ $# -gt 0 ]; do
        case $1 in
            --pid-file) file=$2; shift;;
            create) creates=1;;
        esac
        shift
    done
    [ "$creates" ] || exit 0
    (exec /bin/sh -c 'trap "echo >lost" TERM; until [ -e go ]; do sleep 0.02; done; exec sleep 3456') >/dev/null 2>&1 &
    echo $! >"$file""#;
    let program = script(node, text);
    runtime::configure(&mut node.settings, "failing", &program);
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod_by("failing", &config).await.unwrap();
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        // Whoever waits for a program keeps nobody else from being started.
        ids.push(cri.run(&pod, &config, &shell(name, "")).await.unwrap());
    }
    let stop = |id: &String| {
        let (cri, id) = (node.daemon().cri(), id.clone());
        tokio::spawn(async move { cri.stop(&id, 60).await })
    };
    let stopping: Vec<_> = ids.iter().map(stop).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bundle = |id: &String| Path::new("/run/tripod/oci/failing/bundles").join(id);
    let lost = ids.iter().any(|id| bundle(id).join("lost").exists());
    for id in &ids {
        fs::write(bundle(id).join("go"), "").unwrap();
    }
    for stopping in stopping {
        stopping.await.unwrap().unwrap();
    }
    assert!(!lost, "the signal came before the program");
    for id in &ids {
        assert_eq!(cri.status(id).await.unwrap().exit_code, 143);
    }
}

async fn limits_change(node: &mut Node) {
    let cri = ready(node).await;
    let limits = |memory: i64| LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
    let file = if unified() { "memory.max" } else { "memory/memory.limit_in_bytes" };
    let mut config = shell("main", &format!("cat /sys/fs/cgroup/{file}; sleep 1000"));
    config.linux.as_mut().unwrap().resources = Some(limits(64 << 20));
    let (_, id) = run_in(&cri, &host_pod("main"), &config).await;
    let first = eventually("what the container reads first", Duration::from_secs(20), async || {
        Some(log_text(&log(&cri, &id).await)).filter(|text| text.ends_with('\n'))
    })
    .await;
    assert_eq!(first, format!("{}\n", 64 << 20), "they held before the first instruction");
    let read = format!("cat /sys/fs/cgroup/{file}");
    assert_eq!(cri.sh(&id, &read).await, (64 << 20).to_string());
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(limits(96 << 20)),
        ..Default::default()
    };
    cri.runtime().update_container_resources(request).await.unwrap();
    assert_eq!(cri.sh(&id, &read).await, (96 << 20).to_string());
    let denied = cri.exec(&id, &["/bin/sh", "-c", "mknod /dev/mem c 1 1 && cat /dev/mem"], 10).await.unwrap();
    assert_ne!(denied.exit_code, 0, "device rules hold");
}

async fn what_is_wrong_with_a_program_is_told(node: &mut Node) {
    let cri = ready(node).await;
    let config = host_pod("main");
    let pod = cri.run_pod_by(runtime::HANDLER, &config).await.unwrap();
    let call = format!("{} create", runtime::program().display());
    for (number, command) in ["/no/such/program", "absent-from-path", "/etc/passwd"].into_iter().enumerate() {
        let mut container = shell(&format!("c{number}"), "");
        container.command = vec![command.into()];
        let id = cri.create(&pod, &config, &container).await.unwrap();
        let error = cri.start(&id).await.unwrap_err();
        assert!(error.message().contains(command) && error.message().contains(&call), "{error}");
        let status = cri.status(&id).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");
        assert!(status.message.contains(command), "{}", status.message);
        let text = fs::read_to_string(&status.log_path).unwrap_or_default();
        assert_eq!(text, "", "what the runtime says is not the container's output");
    }
}

async fn it_outlives_the_daemon(node: &mut Node) {
    let cri = ready(node).await;
    let (pod, id) = run(&cri, "trap 'exit 3' TERM; while :; do usleep 10000; done").await;
    let created = cri.create(&pod, &host_pod("main"), &shell("later", "echo later; exit 4")).await.unwrap();
    let ended = cri.run(&pod, &host_pod("main"), &shell("ended", "usleep 300000; exit 6")).await.unwrap();
    let cri = node.restart().await;
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    assert_eq!(cri.exited(&ended).await.exit_code, 6);
    assert_eq!(cri.sh(&id, "echo still").await, "still");
    cri.start(&created).await.unwrap();
    assert_eq!(cri.exited(&created).await.exit_code, 4);
    cri.stop(&id, 30).await.unwrap();
    assert_eq!(cri.status(&id).await.unwrap().exit_code, 3);
}

async fn what_a_killed_daemon_was_making_goes(node: &mut Node) {
    let cri = ready(node).await;
    let config = host_pod("main");
    let pod = cri.run_pod_by(runtime::HANDLER, &config).await.unwrap();
    for (number, pause) in [3, 20, 45, 70].into_iter().enumerate() {
        let cri = node.daemon().cri();
        let id = cri.create(&pod, &config, &shell(&format!("c{number}"), "sleep 1000")).await.unwrap();
        let starting = tokio::spawn({
            let (cri, id) = (node.daemon().cri(), id.clone());
            async move { cri.start(&id).await }
        });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let cri = node.restart().await;
        let _ = starting.await;
        // It runs, or it does not and can be started: nothing in between.
        match cri.status(&id).await.unwrap().state() {
            ContainerState::ContainerCreated => cri.start(&id).await.unwrap(),
            state => assert_eq!(state, ContainerState::ContainerRunning),
        }
        assert_eq!(cri.sh(&id, "echo here").await, "here");
    }
}

async fn nothing_of_it_is_mounted_on_the_host(node: &mut Node) {
    let cri = ready(node).await;
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let (_, id) = run(&cri, "sleep 1000").await;
    assert_eq!(mounts(), before);
    let bundle = Path::new("/run/tripod/oci/other/bundles").join(&id);
    assert_eq!(fs::read_dir(bundle.join("rootfs")).unwrap().count(), 0);
    let inside = cri.sh(&id, "cat /proc/self/mountinfo").await;
    assert!(!inside.contains("/run/tripod/oci"), "{inside}");
    cri.stop(&id, 0).await.unwrap();
    assert!(!bundle.exists(), "a container that has ended needs no bundle");
}

async fn a_handler_that_is_not_there_is_refused(node: &mut Node) {
    runtime::configure(&mut node.settings, "absent", Path::new("/no/such/runtime"));
    let cri = ready(node).await;
    let refused = async |handler: &str| -> Status { cri.run_pod_by(handler, &host_pod("main")).await.unwrap_err() };
    let error = refused("kata").await;
    assert_eq!(error.code(), Code::InvalidArgument);
    let names = ["\"kata\"", "absent", "other"];
    assert!(names.iter().all(|name| error.message().contains(name)), "{error}");
    let error = refused("absent").await;
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("/no/such/runtime") && error.message().contains("install"), "{error}");
    assert!(cri.pods().await.is_empty(), "nothing was made");

    let status = cri.runtime().status(StatusRequest { verbose: false }).await.unwrap().into_inner();
    let mut features: Vec<(String, bool)> = status
        .runtime_handlers
        .into_iter()
        .map(|handler| (handler.name, handler.features.unwrap().recursive_read_only_mounts))
        .collect();
    // Where a runtime serves all pods, it has a handler besides.
    features.retain(|(name, _)| name != "chosen");
    let expected = [("", true), ("absent", false), ("other", true)].map(|(name, able)| (name.to_owned(), able));
    assert_eq!(features, expected);
}

/// A runtime that is a script.
pub(crate) fn script(node: &Node, text: &str) -> std::path::PathBuf {
    let path = node.folder().join("runtime.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn failing_start(node: &mut Node, text: &str) -> (Cri, Status) {
    let program = script(node, text);
    runtime::configure(&mut node.settings, "failing", &program);
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod_by("failing", &config).await.unwrap();
    let id = cri.create(&pod, &config, &shell("main", "true")).await.unwrap();
    let error = cri.start(&id).await.unwrap_err();
    assert_eq!(cri.status(&id).await.unwrap().reason, "StartError");
    (cri, error)
}

async fn a_runtime_that_fails_is_quoted(node: &mut Node) {
    let text = r#"while [ $# -gt 0 ]; do
        case $1 in --log) log=$2; shift;; create) failing=1;; esac; shift
    done
    [ "$failing" ] || exit 0
    echo "{\"level\":\"error\",\"msg\":\"the stars are wrong\"}" >>"$log"
    exit 1"#;
    let (_, error) = failing_start(node, text).await;
    assert!(error.message().contains("runtime.sh create: the stars are wrong"), "{error}");
}

async fn a_runtime_that_hangs_is_ended(node: &mut Node) {
    node.settings.raw("runtimes.failing.timeout_seconds", "1");
    let text = r#"for word; do [ "$word" = create ] && { sleep 3456 & sleep 3456; }; done; exit 0"#;
    let begin = Instant::now();
    let (_, error) = failing_start(node, text).await;
    assert!(error.message().contains("did not end within 1 s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

async fn people_can_read_the_specification(node: &mut Node) {
    let cri = ready(node).await;
    let config = pod("main");
    let (sandbox, by_runc) = run_in(&cri, &config, &shell("main", "sleep 1000")).await;
    let plain = cri.run_in_pod(&host_pod("plain"), &shell("plain", "sleep 1000")).await.unwrap().1;
    let spec = async |id: &str| {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let info = cri.runtime().container_status(request).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        info["runtimeSpec"].clone()
    };
    let (of_runc, of_linux) = (spec(&by_runc).await, spec(&plain).await);
    let bundle = Path::new("/run/tripod/oci/other/bundles").join(&by_runc);
    let written = fs::read(bundle.join("config.json")).unwrap();
    let mut written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    // The one thing in which a host without CAP_SYS_RESOURCE differs.
    written["process"]["oomScoreAdj"] = of_runc["process"]["oomScoreAdj"].clone();
    assert_eq!(of_runc, written, "what is shown is what was given to the runtime");
    assert_eq!(of_linux["process"]["args"][2], "sleep 1000");
    let place = of_linux["linux"]["cgroupsPath"].as_str().unwrap();
    assert_eq!(place, format!("/tripod/{plain}"));
    assert!(!sandbox.is_empty());
}

//! The life of a container: its end, its start that fails, its stop (contract: lines 15 to 17).

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::resources::unified;
use tripod_cri_api::v1::{ContainerConfig, ContainerState, LinuxContainerResources, PodSandboxConfig, Signal};
use tripod_tests::{Cri, Image, Node, container, eventually, host_pod, image_spec, processes, shell, tests};

tests![
    exits_are_told_with_code_reason_and_times,
    a_start_that_fails_says_why,
    lack_of_memory_is_told,
    lack_of_the_pods_memory_is_told,
    stop_asks_then_kills,
    a_program_that_is_not_ready_yet_is_asked_again,
    a_second_stop_shortens_the_grace,
    stop_signals_of_image_and_request,
];

/// A pod for containers.
pub(crate) async fn pod_of(cri: &Cri) -> (String, PodSandboxConfig) {
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

/// A container with this much memory.
pub(crate) fn limited(name: &str, script: &str, memory: i64) -> ContainerConfig {
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

/// 16: the limit of the pod, which is kubelet's; the container ends well in spite of it where nothing ends it as a
/// whole.
async fn lack_of_the_pods_memory_is_told(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = host_pod("main");
    config.linux.as_mut().unwrap().cgroup_parent = "/kubepods/pod1".into();
    let (mut parents, mut limit) = (Vec::new(), "memory.limit_in_bytes");
    for hierarchy in tripod_tests::cgroup::hierarchies() {
        let (top, parent) = (hierarchy.point.join("kubepods"), hierarchy.point.join("kubepods/pod1"));
        if unified() {
            limit = "memory.max";
            for dir in [&hierarchy.point, &top] {
                fs::create_dir_all(dir).unwrap();
                fs::write(dir.join("cgroup.subtree_control"), "+memory +pids +cpu +cpuset +io").unwrap();
            }
        }
        fs::create_dir_all(&parent).unwrap();
        if parent.join(limit).exists() {
            fs::write(parent.join(limit), (24 << 20).to_string()).unwrap();
        }
        parents.extend([parent, top]);
    }
    let pod = cri.run_pod(&config).await.unwrap();
    let hog = "(sleep 0.2; exec dd if=/dev/zero of=/dev/null bs=64M count=1); exit 0";
    let (status, _) = cri.outcome(&pod, &config, &shell("main", hog)).await.unwrap();
    assert_eq!(status.reason, "OOMKilled", "{status:?}");
    assert_eq!(status.exit_code, if unified() { 137 } else { 0 });
    cri.remove_pod(&pod).await.unwrap();
    // 14: nothing of ours keeps kubelet from removing what is its own.
    for parent in parents {
        fs::remove_dir(&parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
    }
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
    let aside = async || (!processes(&["sleep", "4321"]).is_empty()).then_some(());
    eventually("the process of its own", Duration::from_secs(20), aside).await;
    let begin = Instant::now();
    cri.stop(&deaf, 1).await.unwrap();
    assert!((Duration::from_millis(900)..Duration::from_secs(30)).contains(&begin.elapsed()));
    assert_eq!(cri.status(&deaf).await.unwrap().exit_code, 137);
    assert!(processes(&["sleep", "4321"]).is_empty(), "gone when Stop returns");
}

/// 17. The kernel drops a signal to PID 1 that has no handler for it.
async fn a_program_that_is_not_ready_yet_is_asked_again(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let script = "sleep 1; trap 'exit 7' TERM; while :; do sleep 0.1; done";
    let id = cri.run(&pod, &config, &shell("slow", script)).await.unwrap();
    let began = Instant::now();
    cri.stop(&id, 50).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(40), "it was killed at the end of the grace");
    assert_eq!(cri.status(&id).await.unwrap().exit_code, 7);
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
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
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

//! Operations belong to the daemon: the same request joins, reads never wait (contract: lines 2, 6 and 30).

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use tonic::{Code, Request};
use tripod_cri_api::v1::{PodSandboxState, RunPodSandboxRequest, StatusRequest};
use tripod_tests::{BUSYBOX, Cri, Fault, Image, Node, eventually, host_pod, pod, shell, tests, within};

tests![
    the_same_pod_at_once_is_one_pod,
    the_same_container_at_once_is_one_container,
    a_pod_is_finished_after_its_client_has_gone,
    many_pulls_at_once_fetch_once,
    a_pull_goes_on_after_its_client_has_gone,
    reads_do_not_wait_for_a_plugin_that_hangs,
    a_container_that_hangs_does_not_delay_another,
];

async fn the_same_pod_at_once_is_one_pod(node: &mut Node) {
    let cri = node.start().await;
    let config = pod("same");
    let runs = (0..8).map(|_| cri.run_pod(&config));
    let ids: Vec<String> = futures::future::join_all(runs).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(cri.run_pod(&config).await.unwrap(), ids[0], "later, too");
    assert_eq!(cri.pods().await.len(), 1);
    // Another pod of this name is refused.
    let mut other = config.clone();
    other.hostname = "other".into();
    let error = cri.run_pod(&other).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().contains(&ids[0]), "{error}");
}

async fn the_same_container_at_once_is_one_container(node: &mut Node) {
    let cri = node.ready().await;
    let (config, container) = (host_pod("same"), shell("main", "sleep 1000"));
    let pod = cri.run_pod(&config).await.unwrap();
    let creates = (0..8).map(|_| cri.create(&pod, &config, &container));
    let ids: Vec<String> = futures::future::join_all(creates).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(cri.containers().await.len(), 1);
    let starts = (0..4).map(|_| cri.start(&ids[0]));
    let started = futures::future::join_all(starts).await;
    assert!(started.iter().any(Result::is_ok));
    let error = cri.create(&pod, &config, &shell("main", "sleep 1")).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
}

/// A CNI plugin that waits for a file before it adds a pod.
struct SlowPlugin {
    go: PathBuf,
    asked: PathBuf,
}

impl SlowPlugin {
    fn install(node: &mut Node) -> Self {
        let (go, asked) = (node.folder().join("go"), node.folder().join("asked"));
        let result = r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/24"}]}"#;
        let script = format!(
            "#!/bin/sh\ncat >/dev/null\ncase $CNI_COMMAND in\nADD)\n  echo >>{asked}\n  while [ ! -e {go} ]; do sleep 0.05; done\n  echo '{result}' ;;\n\
             VERSION) echo '{{\"cniVersion\": \"1.0.0\", \"supportedVersions\": [\"1.0.0\"]}}' ;;\nesac\n",
            asked = asked.display(),
            go = go.display(),
        );
        let program = node.folder().join("cni/bin/slow");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let list = r#"{"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "slow"}]}"#;
        fs::write(node.folder().join("cni/net.d/10-slow.conflist"), list).unwrap();
        Self { go, asked }
    }

    async fn wait_asked(&self) {
        eventually("the plugin is asked", Duration::from_secs(30), async || self.asked.exists().then_some(())).await;
    }

    fn release(&self) {
        fs::write(&self.go, "").unwrap();
    }
}

async fn a_pod_is_finished_after_its_client_has_gone(node: &mut Node) {
    let plugin = SlowPlugin::install(node);
    let cri = node.start().await;
    let config = pod("patient");
    fs::create_dir_all(&config.log_directory).unwrap();
    let mut request = Request::new(RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() });
    // The daemon has to have it by then; the plugin waits for as long as the test does.
    assert!(cri.answers().await);
    request.set_timeout(Duration::from_secs(4));
    let error = cri.runtime().run_pod_sandbox(request).await.unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&error.code()), "{error}");
    plugin.wait_asked().await;
    // The retry joins; nobody speaks of a reserved name.
    let retry = tokio::spawn({
        let (cri, config) = (cri.clone(), config.clone());
        async move { cri.run_pod(&config).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    plugin.release();
    let id = retry.await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(&plugin.asked).unwrap().lines().count(), 1, "the plugin was asked once");
    assert_eq!(cri.pod(&id).await.unwrap().state(), PodSandboxState::SandboxReady);
    assert_eq!(cri.run_pod(&config).await.unwrap(), id);
}

/// 30.
async fn many_pulls_at_once_fetch_once(node: &mut Node) {
    let registry = node.registry().await;
    let image = Image::busybox();
    let digest = registry.push("busybox:1", &image);
    for layer in &image.layers {
        registry.fail(&layer.digest, Fault::Slow(Duration::from_millis(20)));
    }
    let cri = node.start().await;
    let pulls = (0..32).map(|_| cri.pull(BUSYBOX));
    for id in futures::future::join_all(pulls).await {
        assert_eq!(id.unwrap(), image.id());
    }
    for layer in &image.layers {
        assert_eq!(registry.served(&layer.digest), 1);
    }
    assert_eq!(registry.served(&image.id()), 1, "the configuration");
    let manifests = registry.served("busybox:1") + registry.served(&format!("busybox:{digest}"));
    assert!(manifests <= 2, "{manifests} requests for the manifest");
}

async fn a_pull_goes_on_after_its_client_has_gone(node: &mut Node) {
    let registry = node.registry().await;
    let image = Image::busybox();
    registry.push("busybox:1", &image);
    registry.fail(&image.layers[0].digest, Fault::Slow(Duration::from_millis(60)));
    let cri = node.start().await;
    let given_up = tokio::time::timeout(Duration::from_millis(500), cri.pull(BUSYBOX)).await;
    assert!(given_up.is_err());
    assert_eq!(cri.pull(BUSYBOX).await.unwrap(), image.id());
    assert_eq!(registry.served(&image.layers[0].digest), 1, "the second call joined");
}

/// The longest of many reads.
async fn slowest_read(cri: &Cri) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begin = Instant::now();
        cri.pods().await;
        cri.containers().await;
        cri.runtime().status(StatusRequest { verbose: true }).await.unwrap();
        slowest = slowest.max(begin.elapsed());
    }
    slowest
}

/// 2.
async fn reads_do_not_wait_for_a_plugin_that_hangs(node: &mut Node) {
    let plugin = SlowPlugin::install(node);
    let cri = node.ready().await;
    let (host, container) = cri.run_in_pod(&host_pod("host"), &shell("main", "sleep 1000")).await.unwrap();
    let hanging = tokio::spawn({
        let cri = cri.clone();
        async move { cri.run_pod(&pod("hanging")).await }
    });
    plugin.wait_asked().await;
    let slowest = within("reads", Duration::from_secs(50), slowest_read(&cri)).await;
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    // Other pods come and go.
    assert_eq!(cri.sh(&container, "echo fine").await, "fine");
    within("another pod", Duration::from_secs(50), cri.remove_pod(&host)).await.unwrap();
    plugin.release();
    hanging.await.unwrap().unwrap();
}

async fn a_container_that_hangs_does_not_delay_another(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let deaf = cri.run(&pod, &config, &shell("deaf", "trap '' TERM; while :; do sleep 0.05; done")).await.unwrap();
    let stopping = tokio::spawn({
        let (cri, deaf) = (cri.clone(), deaf.clone());
        async move { cri.stop(&deaf, 50).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(slowest_read(&cri).await < Duration::from_secs(20));
    let other = cri.run(&pod, &config, &shell("other", "sleep 1000")).await.unwrap();
    within("another container", Duration::from_secs(20), cri.stop(&other, 0)).await.unwrap();
    cri.stop(&deaf, 0).await.unwrap();
    stopping.await.unwrap().unwrap();
}

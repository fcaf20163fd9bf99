//! Versions, status and configuration (contract: lines 1 to 5).

use std::{collections::HashMap, time::Duration};

use futures::StreamExt;
use tonic::Code;
use tripod_cri_api::v1::{
    CgroupDriver, CheckpointContainerRequest, NetworkConfig, RuntimeConfig, RuntimeConfigRequest, StatusRequest,
    StreamContainerStatsRequest, StreamContainersRequest, StreamImagesRequest, StreamPodSandboxMetricsRequest,
    StreamPodSandboxStatsRequest, StreamPodSandboxesRequest, UpdateRuntimeConfigRequest, VersionRequest,
};
use tripod_tests::{Cri, Node, eventually, host_pod, pod, shell, tests};

tests![
    version_fills_all_fields,
    statuses_hold_what_the_kubelet_requires,
    status_is_ready_and_verbose_shows_the_configuration,
    network_readiness_follows_the_cni_configuration,
    the_cgroup_driver_is_told,
    a_pod_cidr_is_taken,
    streams_give_every_item_once,
    large_messages_pass,
    what_is_not_built_says_so,
];

/// 1.
async fn version_fills_all_fields(node: &mut Node) {
    let cri = node.start().await;
    let version = cri.runtime().version(VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("tripod", "v1"));
    assert!(!version.version.is_empty() && !version.runtime_version.is_empty());
}

/// 1.
async fn statuses_hold_what_the_kubelet_requires(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, container) = cri.run_in_pod(&host_pod("full"), &shell("main", "sleep 1000")).await.unwrap();
    let status = cri.pod(&pod).await.unwrap();
    assert_eq!(status.id, pod);
    assert_eq!(status.metadata, host_pod("full").metadata);
    assert!(status.created_at > 1_700_000_000_000_000_000);
    let status = cri.status(&container).await.unwrap();
    assert_eq!(status.id, container);
    assert_eq!(status.metadata.unwrap().name, "main");
    assert!(status.created_at > 1_700_000_000_000_000_000 && status.started_at >= status.created_at);
    assert!(!status.image.unwrap().image.is_empty() && !status.image_ref.is_empty());
    assert!(status.image_id.starts_with("sha256:"));
}

async fn condition(cri: &Cri, name: &str) -> (bool, String) {
    let status = cri.runtime().status(StatusRequest::default()).await.unwrap().into_inner().status.unwrap();
    let condition = status.conditions.into_iter().find(|condition| condition.r#type == name).unwrap();
    (condition.status, condition.message)
}

/// 2.
async fn status_is_ready_and_verbose_shows_the_configuration(node: &mut Node) {
    let cri = node.start().await;
    assert!(condition(&cri, "RuntimeReady").await.0);
    assert!(condition(&cri, "NetworkReady").await.0, "the built-in bridge needs no configuration");
    let info = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner().info;
    let root = node.root().to_string_lossy().into_owned();
    assert!(info.values().any(|value| value.contains(&root)), "{info:?}");
}

/// 2.
async fn network_readiness_follows_the_cni_configuration(node: &mut Node) {
    node.settings.text("network.mode", "cni");
    let cri = node.start().await;
    let (ready, message) = condition(&cri, "NetworkReady").await;
    assert!(!ready && !message.is_empty());
    let file = node.folder().join("cni/net.d/10-test.conflist");
    std::fs::write(&file, r#"{"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "loopback"}]}"#).unwrap();
    eventually("NetworkReady", Duration::from_secs(10), async || condition(&cri, "NetworkReady").await.0.then_some(()))
        .await;
    std::fs::remove_file(&file).unwrap();
    eventually("not NetworkReady", Duration::from_secs(10), async || {
        (!condition(&cri, "NetworkReady").await.0).then_some(())
    })
    .await;
}

/// 3.
async fn the_cgroup_driver_is_told(node: &mut Node) {
    let cri = node.start().await;
    let answer = cri.runtime().runtime_config(RuntimeConfigRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.linux.unwrap().cgroup_driver(), CgroupDriver::Cgroupfs);
}

/// 4.
async fn a_pod_cidr_is_taken(node: &mut Node) {
    let cri = node.start().await;
    let network_config = Some(NetworkConfig { pod_cidr: "10.77.0.0/24".into() });
    let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
    cri.runtime().update_runtime_config(request).await.unwrap();
    let id = cri.run_pod(&pod("cidr")).await.unwrap();
    let ip = cri.pod(&id).await.unwrap().network.unwrap().ip;
    assert!(ip.starts_with("10.77.0."), "{ip}");
}

/// 5.
async fn streams_give_every_item_once(node: &mut Node) {
    let cri = node.ready().await;
    let mut runtime = cri.runtime();
    macro_rules! collected {
        ($client:expr, $call:ident, $request:expr, $items:ident) => {{
            let mut stream = $client.$call($request).await.unwrap().into_inner();
            let mut items = Vec::new();
            while let Some(part) = stream.next().await {
                items.extend(part.unwrap().$items);
            }
            items
        }};
    }
    assert!(collected!(runtime, stream_pod_sandboxes, StreamPodSandboxesRequest::default(), pod_sandboxes).is_empty());
    assert!(collected!(runtime, stream_containers, StreamContainersRequest::default(), containers).is_empty());
    for number in 0..5 {
        cri.run_in_pod(&host_pod(&format!("stream-{number}")), &shell("main", "sleep 1000")).await.unwrap();
    }
    let pods = collected!(runtime, stream_pod_sandboxes, StreamPodSandboxesRequest::default(), pod_sandboxes);
    assert_eq!(pods, cri.pods().await);
    let containers = collected!(runtime, stream_containers, StreamContainersRequest::default(), containers);
    let ids: Vec<String> = containers.into_iter().map(|container| container.id).collect();
    assert_eq!(ids, cri.containers().await);
    let images = collected!(cri.images(), stream_images, StreamImagesRequest::default(), images);
    assert_eq!(images, cri.all_images().await);
    let stats = collected!(runtime, stream_container_stats, StreamContainerStatsRequest::default(), container_stats);
    assert_eq!(stats.len(), 5);
    let stats =
        collected!(runtime, stream_pod_sandbox_stats, StreamPodSandboxStatsRequest::default(), pod_sandbox_stats);
    assert_eq!(stats.len(), 5);
    let request = StreamPodSandboxMetricsRequest::default();
    assert_eq!(collected!(runtime, stream_pod_sandbox_metrics, request, pod_sandbox_metrics).len(), 5);
}

/// 5.
async fn large_messages_pass(node: &mut Node) {
    let cri = node.start().await;
    let mut config = host_pod("large");
    config.annotations = HashMap::from([("large".to_owned(), "x".repeat(9 << 20))]);
    let id = cri.run_pod(&config).await.unwrap();
    assert_eq!(cri.pod(&id).await.unwrap().annotations, config.annotations);
    // A part of a stream stays below the limit whatever the items are.
    config.metadata.as_mut().unwrap().name = "second".into();
    cri.run_pod(&config).await.unwrap();
    let mut runtime = cri.runtime().max_decoding_message_size(16 << 20);
    let stream = runtime.stream_pod_sandboxes(StreamPodSandboxesRequest::default()).await.unwrap();
    let parts: Vec<_> = stream.into_inner().collect().await;
    assert_eq!(parts.into_iter().map(|part| part.unwrap().pod_sandboxes.len()).sum::<usize>(), 2);
    cri.remove_pod(&id).await.unwrap();
}

async fn what_is_not_built_says_so(node: &mut Node) {
    let cri = node.start().await;
    let error = cri.runtime().checkpoint_container(CheckpointContainerRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(!error.message().is_empty());
}

//! A daemon in this process, asked over its socket: every call of the contract, and what holds for all of them.
//!
//! Needs root, as the daemon does. No pod is made, so a program that ends at once will do for the shim.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use http_body_util::Full;
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tripod_cri_api::v1::{
    GetEventsRequest, ImageSpec, ListPodSandboxRequest, PodSandboxConfig, PullImageRequest, RunPodSandboxRequest,
    StatusRequest, StreamPodSandboxesRequest, VersionRequest, runtime_service_client::RuntimeServiceClient,
};
use tripod_cri_server::{Daemon, config::Config};

/// Calls of the contract that are not built, and the words by which the README owns up to them.
const NOT_BUILT: [(&str, &str); 3] =
    [("CheckpointContainer", "checkpoint"), ("CheckpointPod", "checkpoint"), ("RestorePod", "restore")];

struct Node {
    daemon: Daemon,
    channel: Channel,
    _folder: tempfile::TempDir,
}

fn config(folder: &Path) -> Config {
    assert!(rustix::process::geteuid().is_root(), "this test starts a daemon: run it as root");
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut config = Config {
        root: folder.join("root"),
        state: folder.join("state"),
        socket: folder.join("state/tripod.sock"),
        ..Config::default()
    };
    config.shim.program = "/bin/true".into();
    config.cgroup.base = name.clone();
    config.network.instance = name;
    config.network.cni_conf_dir = folder.join("cni");
    config.network.netns_dir = folder.join("netns");
    config
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let daemon = Daemon::start(&config).await.unwrap();
        let endpoint = Endpoint::try_from(format!("unix://{}", config.socket.display())).unwrap();
        Self { daemon, channel: endpoint.connect().await.unwrap(), _folder: folder }
    }

    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_encoding_message_size(16 << 20)
    }

    /// What a call answers to an empty request: an error, or that an answer begins.
    async fn ask(&self, service: &str, call: &str) -> Result<(), Status> {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("/runtime.v1.{service}/{call}")).unwrap();
        client.server_streaming(Request::new(()), path, ProstCodec::<(), ()>::default()).await.map(drop)
    }
}

/// All calls of the contract with their services.
fn calls() -> Vec<(String, String)> {
    let set = prost_types::FileDescriptorSet::decode(tripod_cri_api::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    services
        .flat_map(|service| service.method.iter().map(|method| (service.name().to_owned(), method.name().to_owned())))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_built_or_says_that_it_is_not() {
    let node = Node::start().await;
    let calls = calls();
    assert_eq!(calls.len(), 43);
    let mut answers = BTreeMap::new();
    for (service, call) in &calls {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(10), node.ask(service, call)).await;
        answers.insert(call.as_str(), answer.unwrap_or_else(|_| panic!("{call} does not answer")));
    }
    let not_built: BTreeSet<&str> = NOT_BUILT.iter().map(|(call, _)| *call).collect();
    let said: BTreeSet<&str> = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, Err(status) if status.code() == Code::Unimplemented))
        .map(|(call, _)| *call)
        .collect();
    assert_eq!(said, not_built);
    for call in not_built {
        let message = answers[call].as_ref().unwrap_err().message();
        assert!(message.starts_with(call) && message.contains("not built"), "{message}");
    }
    for (call, answer) in answers {
        // An empty request is wrong for many calls, but no reason to fail.
        let fine = match &answer {
            Ok(()) => true,
            Err(status) => [Code::InvalidArgument, Code::NotFound, Code::Unimplemented].contains(&status.code()),
        };
        assert!(fine, "{call}: {answer:?}");
    }
    node.daemon.stop().await.unwrap();
}

#[test]
fn the_readme_owns_up_to_what_is_not_built() {
    let readme = include_str!("../../README.md");
    let columns = readme.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(3));
    let not_yet: String = columns.collect::<Vec<_>>().join("\n");
    for (call, words) in NOT_BUILT {
        assert!(not_yet.contains(words), "{call}: no {words:?} in the column \"not yet\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_tells_who_it_is_and_how_it_fares() {
    let node = Node::start().await;
    let version = node.runtime().version(VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.runtime_name.as_str()), ("0.1.0", "tripod"));

    let status = node.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    let ready: Vec<(String, bool)> =
        status.status.unwrap().conditions.into_iter().map(|condition| (condition.r#type, condition.status)).collect();
    assert_eq!(ready, [("RuntimeReady".to_owned(), true), ("NetworkReady".to_owned(), true)]);
    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert!(config["root"].as_str().is_some_and(|root| root.ends_with("/root")), "{config}");
    for key in ["isolators", "operations", "pulls"] {
        serde_json::from_str::<serde_json::Value>(&status.info[key]).unwrap();
    }
    assert_eq!(status.runtime_handlers[0].name, "");

    let quiet = node.runtime().status(StatusRequest { verbose: false }).await.unwrap().into_inner();
    assert!(quiet.info.is_empty());
    node.daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_up_to_16_mib_arrive() {
    let node = Node::start().await;
    let with = |bytes: usize| RunPodSandboxRequest {
        config: Some(PodSandboxConfig {
            annotations: [("large".to_owned(), "x".repeat(bytes))].into(),
            ..PodSandboxConfig::default()
        }),
        ..RunPodSandboxRequest::default()
    };
    // Read and understood: it is the name that is missing.
    let refused = node.runtime().run_pod_sandbox(with(15 << 20)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("config.metadata"), "{refused}");
    let mut client = node.runtime().max_encoding_message_size(64 << 20);
    assert_eq!(client.run_pod_sandbox(with(17 << 20)).await.unwrap_err().code(), Code::OutOfRange);
    node.daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lists_are_empty_streams() {
    let node = Node::start().await;
    let list = node.runtime().list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner();
    assert!(list.items.is_empty());
    let stream = node.runtime().stream_pod_sandboxes(StreamPodSandboxesRequest::default()).await;
    assert!(stream.unwrap().into_inner().message().await.unwrap().is_none());
    node.daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_roots_and_goes_with_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let daemon = Daemon::start(&config).await.unwrap();
    let mode = std::fs::metadata(&config.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let second = Daemon::start(&config).await.unwrap_err().to_string();
    assert!(second.contains("another tripod answers"), "{second}");
    let elsewhere = Config { socket: folder.path().join("other.sock"), ..config.clone() };
    let second = Daemon::start(&elsewhere).await.unwrap_err().to_string();
    assert!(second.contains("another tripod"), "{second}");
    assert!(!elsewhere.socket.exists(), "a daemon that did not start leaves no socket");

    daemon.stop().await.unwrap();
    assert!(!config.socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_served_where_the_settings_say_so() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // Free a moment ago, and nobody else's business on a loopback address of our own.
    let address = std::net::TcpListener::bind("127.0.0.77:0").unwrap().local_addr().unwrap();
    config.metrics.address = Some(address);
    let daemon = Daemon::start(&config).await.unwrap();
    let endpoint = Endpoint::try_from(format!("unix://{}", config.socket.display())).unwrap();
    let mut client = RuntimeServiceClient::new(endpoint.connect().await.unwrap());
    client.version(VersionRequest::default()).await.unwrap();

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    for line in [
        "tripod_cri_calls_total{call=\"Version\",code=\"Ok\"} 1",
        "tripod_pods{state=\"ready\"} 0",
        "tripod_containers{state=\"running\"} 0",
        "tripod_image_pulls_running 0",
        "tripod_image_layers_under_way{state=\"downloading\"} 0",
        "tripod_image_store_bytes 0",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_over_is_answered_as_such() {
    // A registry that takes connections and says nothing.
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/silent:1", registry.local_addr().unwrap());
    let node = Node::start().await;
    // A client without a clock of its own, which would answer before the server does.
    let socket = tokio::net::UnixStream::connect(node.daemon.socket()).await.unwrap();
    let (mut client, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket)).await.unwrap();
    let connection = tokio::spawn(connection);
    let pull =
        PullImageRequest { image: Some(ImageSpec { image, ..ImageSpec::default() }), ..PullImageRequest::default() };
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(pull.encoded_len()).unwrap().to_be_bytes());
    pull.encode(&mut body).unwrap();
    for milliseconds in (1..100).rev() {
        let request = hyper::Request::post("http://node/runtime.v1.ImageService/PullImage")
            .header("content-type", "application/grpc")
            .header("grpc-timeout", format!("{milliseconds}m"))
            .body(Full::<Bytes>::from(body.clone()))
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{milliseconds} ms: {status}");
    }
    drop(client);
    connection.await.unwrap().unwrap();
    node.daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_events_does_not_hold_up_the_end() {
    let node = Node::start().await;
    let mut events = node.runtime().get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let started = std::time::Instant::now();
    node.daemon.stop().await.unwrap();
    assert!(started.elapsed() < std::time::Duration::from_millis(4500), "{:?}", started.elapsed());
    assert!(events.message().await.unwrap().is_none());
}

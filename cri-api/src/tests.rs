use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use tonic::Code;

use super::{FILE_DESCRIPTOR_SET, v1};

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file
}

#[test]
fn descriptors_hold_the_whole_contract() {
    let files = files();
    assert!(files.iter().all(|file| file.package() == "runtime.v1" && file.syntax() == "proto3"));

    let mut calls = BTreeMap::new();
    for service in files.iter().flat_map(|file| &file.service) {
        calls.insert(service.name().to_owned(), service.method.len());
    }
    let expected = [("ImageService", 6), ("RuntimeService", 37)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(calls, BTreeMap::from(expected));
    assert_eq!(calls.values().sum::<usize>(), 43);
}

#[test]
fn only_lists_and_events_stream() {
    let streams: BTreeSet<String> = files()
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .inspect(|method| assert!(!method.client_streaming(), "{}", method.name()))
        .filter(|method| method.server_streaming())
        .map(|method| method.name().to_owned())
        .collect();
    let expected = [
        "GetContainerEvents",
        "StreamContainerStats",
        "StreamContainers",
        "StreamImages",
        "StreamPodSandboxMetrics",
        "StreamPodSandboxStats",
        "StreamPodSandboxes",
    ];
    assert_eq!(streams, expected.map(str::to_owned).into());
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let secret = || "hunter2".to_owned();
    let request = v1::PullImageRequest {
        auth: Some(v1::AuthConfig {
            username: "somebody".to_owned(),
            password: secret(),
            auth: secret(),
            server_address: "registry.example".to_owned(),
            identity_token: secret(),
            registry_token: String::new(),
        }),
        ..Default::default()
    };
    let text = format!("{request:?}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("somebody") && text.contains("registry.example"), "{text}");
    assert!(text.contains("identity_token: [redacted]") && text.contains("registry_token: unset"), "{text}");
}

/// A runtime that does nothing at all, which only compiles while every call has a default.
#[derive(Debug)]
struct Nothing;

impl v1::runtime_service_server::RuntimeService for Nothing {}
impl v1::image_service_server::ImageService for Nothing {}

#[tokio::test]
async fn what_a_server_leaves_out_is_unimplemented() {
    use v1::image_service_client::ImageServiceClient;
    use v1::image_service_server::ImageServiceServer;
    use v1::runtime_service_client::RuntimeServiceClient;
    use v1::runtime_service_server::RuntimeServiceServer;

    // Client straight into server, without a connection between them.
    let mut runtime = RuntimeServiceClient::new(RuntimeServiceServer::new(Nothing));
    let version = runtime.version(v1::VersionRequest::default()).await;
    assert_eq!(version.unwrap_err().code(), Code::Unimplemented);
    let events = runtime.get_container_events(v1::GetEventsRequest::default()).await;
    assert_eq!(events.unwrap_err().code(), Code::Unimplemented);

    let mut images = ImageServiceClient::new(ImageServiceServer::new(Nothing));
    let pull = images.pull_image(v1::PullImageRequest::default()).await;
    assert_eq!(pull.unwrap_err().code(), Code::Unimplemented);
}

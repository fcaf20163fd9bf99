use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

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

//! What ends up in a plan.

use std::{os::unix::net::UnixListener, sync::Arc};

use serde_json::{Value, json};
use tripod_shim_protocol::{LaunchPlan, SeccompFilter};

use super::interpreter::{Data, read, run};
use crate::{
    Kind, Result, SeccompProfile,
    isolator::{
        fixture::Fixture,
        seccomp::{Kernel, Seccomp, arch::Arch, assemble::MAX_INSTRUCTIONS, rules::Action},
    },
};

async fn filter(fixture: &Fixture, seccomp: &Seccomp, capabilities: &[u8]) -> Result<Option<SeccompFilter>> {
    let mut plan = LaunchPlan::default();
    plan.process.capabilities.bounding = capabilities.to_vec();
    fixture.prepare_into(seccomp, &mut plan).await?;
    Ok(plan.process.seccomp)
}

fn with(profile: SeccompProfile) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.config.security.seccomp = profile;
    fixture
}

fn with_file(text: &str) -> Fixture {
    let mut fixture = Fixture::new();
    let path = fixture.host("profile.json");
    std::fs::write(&path, text).unwrap();
    fixture.config.security.seccomp = SeccompProfile::Localhost(path);
    fixture
}

async fn refused(fixture: &Fixture, seccomp: &Seccomp, kind: Kind, words: &[&str]) {
    let error = filter(fixture, seccomp, &[]).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text:?} does not say {words:?}");
}

fn verdict(filter: &SeccompFilter, call: &str, first: u64) -> u32 {
    let number = Arch::NATIVE.number(call).unwrap();
    run(&read(&filter.program), &Data { number, arch: Arch::NATIVE.audit(), args: [first, 0, 0, 0, 0, 0] })
}

#[tokio::test]
async fn the_default_profile_follows_the_capabilities() {
    let (seccomp, fixture) = (Seccomp::new(), with(SeccompProfile::RuntimeDefault));
    let plain = filter(&fixture, &seccomp, &[0, 1]).await.unwrap().unwrap();
    assert_eq!(verdict(&plain, "read", 0), Action::Allow.code());
    assert_eq!(verdict(&plain, "mount", 0), Action::Errno(1).code());
    assert_eq!(verdict(&plain, "clone3", 0), Action::Errno(38).code());
    assert_eq!(verdict(&plain, "clone", 0x1000_0000), Action::Errno(1).code());
    assert_eq!(verdict(&plain, "clone", 17), Action::Allow.code());
    assert_eq!(verdict(&plain, "socket", 40), Action::Errno(1).code());
    assert_eq!(verdict(&plain, "socket", 2), Action::Allow.code());
    let admin = filter(&fixture, &seccomp, &[21]).await.unwrap().unwrap();
    assert_eq!(verdict(&admin, "mount", 0), Action::Allow.code());
    assert_eq!(verdict(&admin, "clone3", 0), Action::Allow.code());

    // Capabilities on which nothing depends make no other program.
    let again = filter(&fixture, &seccomp, &[0, 5, 7]).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&plain.program, &again.program));
    assert_eq!(seccomp.cache.len(), 2);
}

#[tokio::test]
async fn nothing_is_filtered_where_nothing_is_asked_or_all_is_allowed() {
    let seccomp = Seccomp::new();
    assert!(filter(&Fixture::new(), &seccomp, &[]).await.unwrap().is_none());
    let mut privileged = with(SeccompProfile::Localhost("/no/such/file".into()));
    privileged.config.security.privileged = true;
    assert!(filter(&privileged, &seccomp, &[]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_has_changed_is_another_profile() {
    let (seccomp, profile) = (Seccomp::new(), json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    let fixture = with_file(&profile.to_string());
    let first = filter(&fixture, &seccomp, &[]).await.unwrap().unwrap();
    assert_eq!(verdict(&first, "chmod", 0), Action::Allow.code());
    let entry = json!([{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}]);
    let changed = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entry, "flags": ["SECCOMP_FILTER_FLAG_LOG"]});
    std::fs::write(fixture.host("profile.json"), changed.to_string()).unwrap();
    let second = filter(&fixture, &seccomp, &[]).await.unwrap().unwrap();
    assert_eq!(verdict(&second, "chmod", 0), Action::Errno(7).code());
    assert!(second.log && !first.log);
}

#[tokio::test]
async fn profiles_that_cannot_be_are_refused_with_their_file() {
    let seccomp = Seccomp::new();
    let missing = with(SeccompProfile::Localhost("/no/such/profile.json".into()));
    refused(&missing, &seccomp, Kind::InvalidArgument, &["/no/such/profile.json", "no such file"]).await;
    let folder = with(SeccompProfile::Localhost("/etc".into()));
    refused(&folder, &seccomp, Kind::InvalidArgument, &["/etc", "not a regular file"]).await;
    refused(&with_file("{"), &seccomp, Kind::InvalidArgument, &["profile.json", "JSON"]).await;
    refused(&with_file(&" ".repeat((1 << 20) + 1)), &seccomp, Kind::InvalidArgument, &["1048577 bytes"]).await;

    // Every condition takes a few instructions.
    let rule = |value: u32| {
        let args: Value = (0..6).map(|index| json!({"index": index, "value": value, "op": "SCMP_CMP_GT"})).collect();
        json!({"names": ["read"], "action": "SCMP_ACT_KILL", "args": args})
    };
    let rules: Vec<_> = (0..400).map(rule).collect();
    let long = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let most = MAX_INSTRUCTIONS.to_string();
    refused(&with_file(&long.to_string()), &seccomp, Kind::InvalidArgument, &["instructions", &most]).await;
    assert_eq!(seccomp.cache.len(), 0, "what is refused is not kept");
}

#[tokio::test]
async fn a_listener_is_told_about_the_container() {
    let profile = |call: &str| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "/run/agent.sock",
            "listenerMetadata": "m",
            "syscalls": [{"names": [call], "action": "SCMP_ACT_NOTIFY"}],
        })
        .to_string()
    };
    let (seccomp, mut fixture) = (Seccomp::new(), with_file(&profile("mkdir")));
    fixture.config.annotations.insert("a".into(), "b".into());
    let listener = filter(&fixture, &seccomp, &[]).await.unwrap().unwrap().listener.unwrap();
    assert_eq!((listener.metadata.as_str(), listener.container), ("m", fixture.id.to_string()));
    assert_eq!(listener.annotations["a"], "b");
    refused(&with_file(&profile("sendmsg")), &seccomp, Kind::InvalidArgument, &["sendmsg"]).await;
}

#[tokio::test]
async fn a_kernel_that_cannot_is_told() {
    let none = Seccomp { kernel: Kernel::default(), ..Seccomp::new() };
    let fixture = with(SeccompProfile::RuntimeDefault);
    refused(&fixture, &none, Kind::FailedPrecondition, &["RuntimeDefault", "no seccomp filters", "Unconfined"]).await;
    assert!(filter(&Fixture::new(), &none, &[]).await.unwrap().is_none());
    let actions = ["allow", "errno"].map(str::to_owned).into();
    let old = Seccomp { kernel: Kernel { actions, version: (4, 0) }, ..Seccomp::new() };
    assert!(filter(&fixture, &old, &[]).await.unwrap().is_some());
    let trap = json!({"defaultAction": "SCMP_ACT_TRAP"}).to_string();
    refused(&with_file(&trap), &old, Kind::FailedPrecondition, &["no action \"trap\""]).await;
}

#[tokio::test]
async fn a_file_that_would_be_waited_for_is_not_opened() {
    let mut fixture = Fixture::new();
    let path = fixture.host("socket");
    let _socket = UnixListener::bind(&path).unwrap();
    fixture.config.security.seccomp = SeccompProfile::Localhost(path);
    refused(&fixture, &Seccomp::new(), Kind::InvalidArgument, &["not a regular file"]).await;
}

#[tokio::test]
async fn the_cache_has_an_end() {
    let seccomp = Seccomp::new();
    for errno in 1..100 {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno}).to_string();
        filter(&with_file(&profile), &seccomp, &[]).await.unwrap();
    }
    assert_eq!(seccomp.cache.len(), 64);
}

//! Filters for system calls (contract: line 28; profiles as the kubelet asks for them).

use std::path::Path;

use tonic::{Code, Status};
use tripod_cri_api::v1::{Capability, ContainerConfig, SecurityProfile, StatusRequest, security_profile::ProfileType};
use tripod_tests::{Cri, Node, host_pod, security_of, shell, tests, unconfined};

use crate::containers::pod_of;

tests![
    the_default_profile_forbids_and_allows,
    unconfined_and_privileged_containers_have_no_filter,
    a_profile_of_the_node_decides,
    profiles_that_cannot_be_are_refused,
];

fn filtered(name: &str, script: &str, kind: ProfileType, path: &Path) -> ContainerConfig {
    let mut config = shell(name, script);
    let localhost_ref = path.to_string_lossy().into_owned();
    security_of(&mut config).seccomp = Some(SecurityProfile { profile_type: kind.into(), localhost_ref });
    config
}

fn default(name: &str, script: &str) -> ContainerConfig {
    filtered(name, script, ProfileType::RuntimeDefault, Path::new(""))
}

/// The line that tells whether a filter is in force.
const MODE: &str = "grep Seccomp: /proc/self/status";
const FILTER: &str = "Seccomp:\t2";
const NONE: &str = "Seccomp:\t0";

/// 28.
async fn the_default_profile_forbids_and_allows(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    // A user namespace takes no capability: the filter alone forbids it. With CAP_SYS_ADMIN it does not.
    let script = "unshare -U true 2>&1; mkdir /x && chmod 700 /x && (sleep 0 & wait) && echo fine";
    let (_, text) = cri.outcome(&pod, &config, &default("plain", script)).await.unwrap();
    assert!(text.contains("Operation not permitted") && text.ends_with("fine\n"), "{text}");
    let mut admin = unconfined(default("admin", "unshare -U true && mount -t tmpfs none /tmp && echo mounted"));
    security_of(&mut admin).capabilities =
        Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Capability::default() });
    let (_, text) = cri.outcome(&pod, &config, &admin).await.unwrap();
    assert_eq!(text, "mounted\n");

    for (name, user, no_new_privs) in [("root", 0, false), ("user", 1000, false), ("root-nnp", 0, true)] {
        let mut config_of = default(name, &format!("{MODE}; sleep 1000"));
        security_of(&mut config_of).run_as_user = Some(tripod_cri_api::v1::Int64Value { value: user });
        security_of(&mut config_of).no_new_privs = no_new_privs;
        let id = cri.run(&pod, &config, &config_of).await.unwrap();
        assert_eq!(cri.sh(&id, &format!("{MODE} /proc/1/status | cut -d: -f2- | sort -u")).await, FILTER, "{name}");
        assert_eq!(cri.exec(&id, &["unshare", "-U", "true"], 10).await.unwrap().exit_code, 1, "{name}");
    }
    let info = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner().info;
    assert!(info.values().any(|value| value.contains("seccomp") && value.contains("user_notif")), "{info:?}");

    // A daemon that takes over knows the filter of what it did not start.
    let id = cri.run(&pod, &config, &default("kept", "sleep 1000")).await.unwrap();
    let cri = node.restart().await;
    assert_eq!(cri.sh(&id, MODE).await, FILTER);
}

async fn unconfined_and_privileged_containers_have_no_filter(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = host_pod("main");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = cri.run_pod(&config).await.unwrap();
    let mut privileged = filtered("privileged", MODE, ProfileType::Localhost, Path::new("/no/such/profile.json"));
    security_of(&mut privileged).privileged = true;
    let unconfined = filtered("unconfined", MODE, ProfileType::Unconfined, Path::new(""));
    for config_of in [shell("silent", MODE), unconfined, privileged] {
        let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
        assert_eq!(text.trim_end(), NONE, "{config_of:?}");
    }
}

const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "syscalls": [
        {"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["rmdir"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["link", "linkat"], "action": "SCMP_ACT_LOG"},
        {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_TIME"]}},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3,
         "args": [{"index": 1, "value": 10, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}
    ]
}"#;

async fn a_profile_of_the_node_decides(node: &mut Node) {
    let path = node.folder().join("profile.json");
    std::fs::write(&path, PROFILE).unwrap();
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let local = |name: &str, script: &str| filtered(name, script, ProfileType::Localhost, &path);
    let script = "touch /f; chmod 777 /f; mkdir /d; ln /f /g && echo linked; \
                  sleep 9 & kill -10 $!; kill -12 $! && wait $!; echo $?";
    let (_, text) = cri.outcome(&pod, &config, &local("errors", &format!("({script}) 2>&1"))).await.unwrap();
    for expected in ["/f: Operation not permitted", "No space left on device", "linked\n", "No such process", "140\n"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let (status, _) = cri.outcome(&pod, &config, &local("killed", "exec rmdir /tmp")).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (159, "Error"));

    // The field of older clients.
    let mut former = shell("former", "chmod 777 /etc 2>&1");
    #[allow(deprecated)]
    security_of(&mut former).seccomp_profile_path.push_str(&format!("localhost/{}", path.display()));
    let (status, text) = cri.outcome(&pod, &config, &former).await.unwrap();
    assert!(status.exit_code == 1 && text.contains("not permitted"), "{text}");

    // What a filter forbids stays forbidden to who has the capability for it.
    let mut admin = local("admin", "hostname x 2>&1");
    security_of(&mut admin).capabilities =
        Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Capability::default() });
    let (_, text) = cri.outcome(&pod, &config, &admin).await.unwrap();
    assert!(text.contains("not permitted"), "{text}");
}

async fn profiles_that_cannot_be_are_refused(node: &mut Node) {
    let folder = node.folder().to_owned();
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let before = cri.containers().await;
    let refused = async |cri: &Cri, name: &str, text: Option<&str>| -> Status {
        let path = folder.join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let config_of = filtered("refused", "true", ProfileType::Localhost, &path);
        cri.create(&pod, &config, &config_of).await.unwrap_err()
    };
    let broken =
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_MAYBE"}]}"#;
    let agent =
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_NOTIFY"}]}"#;
    for (name, text, words) in [
        ("absent.json", None, &["absent.json", "no such file"][..]),
        ("text.json", Some("no JSON"), &["text.json", "JSON"]),
        ("action.json", Some(broken), &["action.json", "syscalls[0].action", "SCMP_ACT_MAYBE"]),
        ("agent.json", Some(agent), &["agent.json", "listenerPath"]),
    ] {
        let error = refused(&cri, name, text).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
    }
    let relative = filtered("relative", "true", ProfileType::Localhost, Path::new("profile.json"));
    let error = cri.create(&pod, &config, &relative).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("absolute"), "{error}");
    assert_eq!(cri.containers().await, before, "nothing is left of what was refused");
}

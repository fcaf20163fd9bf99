//! AppArmor profiles. Where the kernel has none this proves what is refused and what is not; where it confines (the
//! test VM), also that the default profile does.

use std::path::Path;

use tonic::Code;
use tripod_cri_api::v1::{Capability, ContainerConfig, SecurityProfile, StatusRequest, security_profile::ProfileType};
use tripod_tests::{Cri, Node, container, security_of, shell, tests};

use crate::containers::pod_of;

tests![
    what_asks_for_no_profile_of_the_node_runs,
    profiles_that_are_not_loaded_are_refused,
    the_default_profile_confines_first_process_and_execs,
];

/// The kernel confines, and its interface can be reached from here.
fn confines() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
        && Path::new("/sys/kernel/security/apparmor/profiles").exists()
        && ["/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"].iter().any(|parser| Path::new(parser).exists())
}

fn with(mut config: ContainerConfig, kind: ProfileType, name: &str) -> ContainerConfig {
    let profile = SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() };
    security_of(&mut config).apparmor = Some(profile);
    config
}

async fn details(cri: &Cri) -> String {
    let info = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner().info;
    let isolators: serde_json::Value = serde_json::from_str(&info["isolators"]).unwrap();
    isolators["apparmor.apparmor"].as_str().unwrap().to_owned()
}

async fn what_asks_for_no_profile_of_the_node_runs(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let former = |name: &str, profile: &str| {
        let mut config = container(name, &["true"]);
        #[allow(deprecated)]
        security_of(&mut config).apparmor_profile.push_str(profile);
        config
    };
    let unconfined = with(container("unconfined", &["true"]), ProfileType::Unconfined, "");
    let mut all = vec![container("silent", &["true"]), unconfined, former("former", "unconfined")];
    // Where AppArmor is on and its parser is not there, what was asked for cannot be had.
    if confines() || details(&cri).await.contains("has none") {
        all.push(with(container("default", &["true"]), ProfileType::RuntimeDefault, ""));
        all.push(former("former-default", "runtime/default"));
    }
    for config_of in all {
        let (status, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
        assert_eq!((status.exit_code, text.as_str()), (0, ""), "{config_of:?}");
    }
}

async fn profiles_that_are_not_loaded_are_refused(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    let before = cri.containers().await;
    let mut former = container("former", &["true"]);
    #[allow(deprecated)]
    security_of(&mut former).apparmor_profile.push_str("localhost/tripod-no-such-profile");
    let mut both = with(container("both", &["true"]), ProfileType::Localhost, "tripod-no-such-profile");
    #[allow(deprecated)]
    security_of(&mut both).apparmor_profile.push_str("unconfined");
    let prefixed = with(container("prefixed", &["true"]), ProfileType::Localhost, "localhost/tripod-no-such-profile");
    for config_of in [former, both, prefixed] {
        let error = cri.create(&pod, &config, &config_of).await.unwrap_err();
        assert!(matches!(error.code(), Code::FailedPrecondition | Code::InvalidArgument), "{error}");
        assert!(error.message().contains("\"tripod-no-such-profile\""), "{error}");
    }
    let nameless = with(container("nameless", &["true"]), ProfileType::Localhost, "");
    let error = cri.create(&pod, &config, &nameless).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("apparmor"), "{error}");
    assert_eq!(cri.containers().await, before, "nothing is left of what was refused");
}

async fn the_default_profile_confines_first_process_and_execs(node: &mut Node) {
    const CURRENT: &str = "cat /proc/self/attr/apparmor/current 2>/dev/null || cat /proc/self/attr/current";
    let cri = node.ready().await;
    let said = details(&cri).await;
    if !confines() {
        let expected = ["this kernel has none", "securityfs is not mounted", "apparmor_parser is not installed"];
        assert!(expected.iter().any(|words| said.contains(words)), "{said}");
        return;
    }
    let (pod, config) = pod_of(&cri).await;
    // With the capability for it, only the profile forbids a mount.
    let script = format!("{CURRENT}; mount -t tmpfs none /tmp || echo kept; sleep 1000");
    let mut admin = shell("admin", &script);
    security_of(&mut admin).no_new_privs = true;
    security_of(&mut admin).capabilities =
        Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Capability::default() });
    let id = cri.run(&pod, &config, &admin).await.unwrap();
    let name = cri.sh(&id, CURRENT).await;
    assert!(name.starts_with("tripod-default-") && name.trim_end().ends_with("(enforce)"), "{name}");
    assert!(said.contains(name.split(' ').next().unwrap()), "{said}");
    assert!(cri.sh(&id, "mount -t tmpfs none /tmp 2>&1 || echo kept").await.ends_with("kept"));
    assert_eq!(cri.sh(&id, "cat /proc/1/attr/current").await.trim_end(), name.trim_end(), "the first process too");
    let cri = node.restart().await;
    assert_eq!(cri.sh(&id, CURRENT).await, name, "a daemon that takes over knows it");
}

//! SELinux labels, on a node without SELinux: what is asked for is checked and has no effect.

use tonic::Code;
use tripod_cri_api::v1::{SeLinuxOption, StatusRequest};
use tripod_tests::{Node, host_pod, mount, security_of, shell, tests};

use crate::containers::pod_of;

tests![labels_are_checked_and_without_effect_where_there_are_none];

async fn labels_are_checked_and_without_effect_where_there_are_none(node: &mut Node) {
    assert!(!std::path::Path::new("/sys/fs/selinux/enforce").exists(), "this test is for nodes without SELinux");
    let folder = node.folder().to_owned();
    let cri = node.ready().await;
    let label = |kind: &str, level: &str| {
        Some(SeLinuxOption { r#type: kind.into(), level: level.into(), ..SeLinuxOption::default() })
    };
    let (pod, config) = pod_of(&cri).await;
    let before = cri.containers().await;
    for (asked, word) in [(label("spc_t", "s0,c4,c5"), "level"), (label("spc_t:s0", ""), "type")] {
        let mut bad = shell("bad", "true");
        security_of(&mut bad).selinux_options = asked;
        let error = cri.create(&pod, &config, &bad).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(word), "{error}");
    }
    assert_eq!(cri.containers().await, before, "nothing is left of what was refused");

    let volume = folder.join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mut labelled = shell("labelled", "cat /proc/self/attr/current; echo; touch /volume/file && echo fine");
    security_of(&mut labelled).selinux_options = label("spc_t", "s0:c4,c5");
    let mut mounted = mount(volume.to_str().unwrap(), "/volume");
    mounted.selinux_relabel = true;
    labelled.mounts.push(mounted);
    let (_, text) = cri.outcome(&pod, &config, &labelled).await.unwrap();
    assert!(text.ends_with("fine\n") && !text.contains("spc_t"), "{text}");

    let mut config = host_pod("labelled");
    let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.selinux_options = label("", "s0:c4,c5");
    cri.run_pod(&config).await.unwrap();
    let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.selinux_options = label("", "c4");
    config.metadata.as_mut().unwrap().name = "bad".into();
    assert_eq!(cri.run_pod(&config).await.unwrap_err().code(), Code::InvalidArgument);

    let info = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner().info;
    assert!(info["isolators"].contains("labels that are asked for are without effect"), "{info:?}");
}

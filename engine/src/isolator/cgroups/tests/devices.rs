//! Devices are kept from containers, in both kinds of hierarchy.

use super::*;

#[tokio::test]
async fn the_unified_tree_keeps_devices_from_a_container() {
    let own = Own::unified();
    let zero =
        DeviceRule { allow: true, kind: Some(DeviceKind::Char), major: Some(1), minor: Some(5), access: "r".into() };
    let mut plan = own.plan(Resources::default()).await;
    plan.resources.devices = vec![zero];
    own.0.create(&plan.cgroups, &plan.resources).expect("cgroups");
    let read = |device: &str| spawn(&plan, &format!("head -c 1 {device} || exit 9")).wait().unwrap().code();
    assert_eq!(read("/dev/zero"), Some(0));
    assert_eq!(read("/dev/urandom"), Some(9));
    own.finish(&plan).await;
}

#[tokio::test]
async fn devices_that_are_not_allowed_cannot_be_opened() {
    let own = Own::new();
    let mut plan = own.plan(Resources::default()).await;
    let rule = |minor| DeviceRule {
        allow: true,
        kind: Some(DeviceKind::Char),
        major: Some(1),
        minor: Some(minor),
        access: "rwm".to_owned(),
    };
    plan.resources.devices = vec![rule(3)];
    own.0.create(&plan.cgroups, &plan.resources).unwrap();
    if !own.0.unified() {
        assert_eq!(own.read(&plan, Controller::Devices, "devices.list"), "c 1:3 rwm");
    }
    let status =
        spawn(&plan, "echo > /dev/null || exit 1; cat /dev/zero | head -c 1 | grep -q . && exit 2; exit 0").wait();
    assert_eq!(status.unwrap().code(), Some(0));
    let status = spawn(&plan, "head -c 1 /dev/zero").wait();
    assert_ne!(status.unwrap().code(), Some(0));
    own.finish(&plan).await;
}

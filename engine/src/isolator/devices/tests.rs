use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::*;
use crate::{Kind, VolumeMount, isolator::fixture::Fixture};

fn request(host: impl Into<PathBuf>, container: &str, permissions: &str) -> DeviceRequest {
    DeviceRequest { host_path: host.into(), container_path: container.into(), permissions: permissions.to_owned() }
}

fn paths(plan: &LaunchPlan) -> Vec<&Path> {
    plan.devices.iter().map(|node| node.path.as_path()).collect()
}

#[tokio::test]
async fn every_container_has_the_default_nodes() {
    let plan = Fixture::new().prepare(&Devices).await.unwrap();
    let names = ["null", "zero", "full", "random", "urandom", "tty"].map(|name| Path::new("/dev").join(name));
    assert_eq!(paths(&plan), names);
    let null = &plan.devices[0];
    assert_eq!((null.kind, null.major, null.minor, null.mode), (DeviceKind::Char, 1, 3, 0o666));
    assert_eq!(plan.resources.devices.len(), 2 + 6 + 3);
    assert!(plan.resources.devices.iter().all(|rule| rule.allow));
    assert!(plan.resources.devices[..2].iter().all(|rule| rule.access == "m"));
}

#[tokio::test]
async fn devices_are_found_by_path_and_through_links() {
    let mut fixture = Fixture::new();
    let link = fixture.host("link");
    symlink("/dev/full", &link).unwrap();
    fixture.config.devices = vec![request("/dev/null", "/dev/mine", "rw"), request(link, "/dev/a/../b", "")];
    assert_eq!(fixture.prepare(&Devices).await.unwrap_err().kind(), Kind::InvalidArgument);
    fixture.config.devices[1].container_path = "/dev/a/b".into();
    let plan = fixture.prepare(&Devices).await.unwrap();
    assert_eq!(paths(&plan)[6..], [Path::new("/dev/mine"), Path::new("/dev/a/b")]);
    assert_eq!((plan.devices[7].major, plan.devices[7].minor), (1, 7));
    let rules = &plan.resources.devices[11..];
    assert_eq!((rules[0].minor, rules[0].access.as_str()), (Some(3), "rw"));
    assert_eq!((rules[1].minor, rules[1].access.as_str()), (Some(7), "rwm"));
}

#[tokio::test]
async fn folders_give_their_devices() {
    let mut fixture = Fixture::new();
    let dir = fixture.host("devices");
    fs::create_dir_all(dir.join("deep/empty")).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    symlink("/dev/null", dir.join("deep/null")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    symlink(&dir, dir.join("loop")).unwrap();
    fixture.config.devices = vec![request(&dir, "/dev/some", "r")];
    let plan = fixture.prepare(&Devices).await.unwrap();
    assert_eq!(paths(&plan)[6..], [Path::new("/dev/some/deep/null")]);
    fixture.config.devices = vec![request(dir.join("deep/empty"), "/dev/some", "r")];
    assert!(fixture.prepare(&Devices).await.unwrap_err().to_string().contains("no devices"));
}

#[tokio::test]
async fn what_is_missing_or_no_device_is_refused() {
    let mut fixture = Fixture::new();
    for (path, permissions, message) in [
        ("/dev/absent-device", "rwm", "/dev/absent-device does not exist"),
        ("/etc/passwd", "rwm", "neither a device nor"),
        ("/dev/null", "rx", "only r, w and m"),
        ("/dev/null", "rr", "only r, w and m"),
    ] {
        fixture.config.devices = vec![request(path, "/dev/x", permissions)];
        let error = fixture.prepare(&Devices).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn privileged_containers_have_them_all() {
    let mut fixture = Fixture::new();
    fixture.config.security.privileged = true;
    let plan = fixture.prepare(&Devices).await.unwrap();
    assert_eq!(plan.resources.devices, [rule(None, None, None, "rwm")]);
    let paths = paths(&plan);
    assert!(paths.contains(&Path::new("/dev/null")));
    for own in ["/dev/ptmx", "/dev/console", "/dev/pts/0", "/dev/pts/ptmx"] {
        assert!(!paths.contains(&Path::new(own)), "{own}");
    }
    let unique: std::collections::HashSet<_> = paths.iter().collect();
    assert_eq!(unique.len(), paths.len());
}

#[tokio::test]
async fn no_node_is_made_in_the_hosts_dev() {
    let mut fixture = Fixture::new();
    fixture.config.mounts =
        vec![VolumeMount { host_path: "/dev".into(), container_path: "/dev/".into(), ..VolumeMount::default() }];
    let plan = fixture.prepare(&Devices).await.unwrap();
    assert!(plan.devices.is_empty() && !plan.resources.devices.is_empty());
}

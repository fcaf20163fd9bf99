//! What a runtime finds made in the bundle for a pod with a user namespace: all that only the host's root can make.

use std::path::Path;

use serde_json::{Value, json};
use tripod_shim_protocol::{
    LaunchPlan, MountSource,
    oci::bundle::{MADE, device, is_of_runtimes},
};

/// Has a specification name what the shim makes in the bundle: mounts that need the host's rights, and device nodes, as
/// runtimes bind the host's, with the host's owners.
pub(super) fn refer(plan: &LaunchPlan, bundle: &Path, spec: &mut Value) {
    let made = bundle.join(MADE);
    let Some(mounts) = spec["mounts"].as_array_mut() else { return };
    for (index, (mount, entry)) in plan.mounts.iter().zip(mounts.iter_mut()).enumerate() {
        if !mount.takes_hosts_rights() {
            continue;
        }
        let is_bind = entry["type"] == "bind";
        entry["type"] = "bind".into();
        entry["source"] = json!(made.join(index.to_string()));
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("uidMappings");
            entry.remove("gidMappings");
        }
        if let Some(options) = entry["options"].as_array_mut() {
            options.retain(|option| option != "idmap" && option != "ridmap");
            if !is_bind {
                options.extend(["rbind".into(), "rprivate".into()]);
            }
        }
    }
    let hosts = plan.mounts.iter().any(|mount| mount.is_dev() && matches!(mount.source, MountSource::Bind { .. }));
    let own = plan.devices.iter().enumerate().filter(|(_, device)| !is_of_runtimes(&device.path));
    for (index, node) in own.filter(|_| !hosts) {
        let source = made.join(device(index));
        mounts.push(
            json!({ "destination": node.path, "type": "bind", "source": source, "options": ["bind", "rprivate"] }),
        );
    }
    if let Some(devices) = spec["linux"]["devices"].as_array_mut() {
        devices.retain(|device| device["path"].as_str().is_some_and(|path| is_of_runtimes(Path::new(path))));
    }
}

#[cfg(test)]
mod tests {
    use tripod_shim_protocol::{DeviceKind, DeviceNode, IdRange, Mount, MountFlags, UserMapping};

    use super::*;
    use crate::spec::{Surroundings, in_bundle, spec};

    #[test]
    fn what_needs_the_hosts_rights_comes_from_the_bundle() {
        let mount = |target: &str, source, map_ids| Mount {
            target: target.into(),
            source,
            flags: MountFlags { nosuid: true, ..MountFlags::default() },
            propagation: None,
            map_ids,
        };
        let new = |fstype: &str| MountSource::Filesystem { fstype: fstype.into(), options: Vec::new() };
        let bind = || MountSource::Bind { path: "/volume".into(), recursive: true };
        let node = |path: &str| DeviceNode {
            path: path.into(),
            kind: DeviceKind::Char,
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 0,
        };
        let plan = LaunchPlan {
            mounts: vec![
                mount("/proc", new("proc"), false),
                mount("/sys", new("sysfs"), false),
                mount("/plain", bind(), false),
                mount("/mapped", bind(), true),
            ],
            devices: vec![node("/dev/null"), node("/dev/mine")],
            ..LaunchPlan::default()
        };
        let ids = IdRange { host: 70000, length: 10 };
        let user = Some(("/b/user".into(), UserMapping { uids: ids, gids: ids }));
        let mut spec = spec(&plan, &Surroundings { user, ..in_bundle(Path::new("/b")) });
        assert_eq!(spec["mounts"][3]["options"], json!(["rbind", "nosuid", "rprivate", "ridmap"]));
        assert_eq!(spec["mounts"][3]["uidMappings"], json!([{ "containerID": 0, "hostID": 70000, "size": 10 }]));
        let before = spec["mounts"].clone();
        refer(&plan, Path::new("/b"), &mut spec);
        let bound = |target: &str, source: &str, options: &[&str]| json!({ "destination": target, "type": "bind", "source": source, "options": options });
        let expected = json!([
            before[0],
            bound("/sys", "/b/made/1", &["nosuid", "rbind", "rprivate"]),
            before[2],
            bound("/mapped", "/b/made/3", &["rbind", "nosuid", "rprivate"]),
            bound("/dev/mine", "/b/made/device-1", &["bind", "rprivate"]),
        ]);
        assert_eq!(spec["mounts"], expected);
        assert_eq!(spec["linux"]["devices"].as_array().unwrap().len(), 1);
        assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/null");
    }
}

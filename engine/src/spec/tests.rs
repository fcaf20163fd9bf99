use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use tripod_shim_protocol::{
    Capabilities, CgroupPlan, DeviceRule, FsOption, HookStage, Mount, MountFlags, MountSource, ProcessPlan,
    Propagation, Resource, Resources, Rlimit, RootfsPlan,
};

use super::*;

fn mount(target: &str, source: MountSource) -> Mount {
    Mount { target: target.into(), source, flags: MountFlags::default(), propagation: None, map_ids: false }
}

fn full() -> LaunchPlan {
    let read_only = MountFlags { read_only: true, recursive_read_only: true, nosuid: true, ..MountFlags::default() };
    let option = |key: &str, value: Option<&str>| FsOption { key: key.into(), value: value.map(Into::into) };
    LaunchPlan {
        container: "c".into(),
        process: ProcessPlan {
            argv: vec!["sh".into(), "-c".into()],
            env: vec!["A=b".into()],
            cwd: "/work".into(),
            credentials: tripod_shim_protocol::Credentials { uid: 7, gid: 8, groups: vec![9], umask: Some(0o27) },
            capabilities: Capabilities { bounding: vec![0, 21], effective: vec![0], ..Capabilities::default() },
            no_new_privs: true,
            rlimits: vec![Rlimit { resource: Resource::Nofile, soft: 10, hard: u64::MAX }],
            oom_score_adj: Some(-5),
            terminal: true,
            ..ProcessPlan::default()
        },
        cgroup_namespace: true,
        rootfs: RootfsPlan { read_only: true },
        mounts: vec![
            mount(
                "/dev",
                MountSource::Filesystem {
                    fstype: "tmpfs".into(),
                    options: vec![option("mode", Some("755")), option("noswap", None)],
                },
            ),
            Mount {
                flags: read_only,
                propagation: Some(Propagation::Bidirectional),
                map_ids: false,
                ..mount("/data", MountSource::Bind { path: "/srv".into(), recursive: true })
            },
            mount("/dev/shm", MountSource::PodShm),
            mount("/sys/fs/cgroup", MountSource::Cgroups),
            mount("/image", MountSource::Detached(2)),
        ],
        devices: vec![DeviceNode {
            path: "/dev/null".into(),
            kind: DeviceKind::Char,
            major: 1,
            minor: 3,
            mode: 0o666,
            uid: 0,
            gid: 5,
        }],
        masked_paths: vec!["/proc/kcore".into()],
        read_only_paths: vec!["/proc/sys".into()],
        cgroups: CgroupPlan { dirs: Vec::new(), unified: true },
        resources: Resources {
            memory_limit: Some(1 << 20),
            memory_swap: Some(1 << 20),
            cpu_quota: Some(-1),
            cpuset_cpus: Some("0".into()),
            pids_limit: Some(5),
            hugepages: [("2MB".into(), 4)].into(),
            unified: [("memory.high".into(), "1G".into())].into(),
            devices: vec![DeviceRule { allow: true, kind: None, major: Some(1), minor: None, access: "rw".into() }],
            ..Resources::default()
        },
        hooks: vec![tripod_shim_protocol::Hook {
            path: "/bin/hook".into(),
            timeout: Some(3),
            stages: vec![HookStage::CreateContainer, HookStage::Poststop],
            ..tripod_shim_protocol::Hook::default()
        }],
        ..LaunchPlan::default()
    }
}

fn around() -> Surroundings {
    Surroundings {
        network: Some("/proc/1/ns/net".into()),
        ipc: Some("/proc/1/ns/ipc".into()),
        annotations: [("k".into(), "v".into())].into(),
        ..in_bundle(Path::new("/bundle"))
    }
}

/// As somebody else reads it.
fn read(plan: &LaunchPlan, around: &Surroundings) -> Spec {
    serde_json::from_value(spec(plan, around)).expect("a specification")
}

#[test]
fn the_root_propagates_what_a_mount_needs() {
    let of_root = |each: &[Option<Propagation>]| {
        let mounts = each.iter().map(|propagation| Mount {
            propagation: *propagation,
            ..mount("/a", MountSource::Bind { path: "/b".into(), recursive: true })
        });
        mounts::of_root(&LaunchPlan { mounts: mounts.collect(), ..LaunchPlan::default() })
    };
    let (down, both) = (Some(Propagation::HostToContainer), Some(Propagation::Bidirectional));
    assert_eq!(of_root(&[None, Some(Propagation::Private)]), None);
    assert_eq!(of_root(&[None, down]), Some("rslave"));
    assert_eq!(of_root(&[down, both]), Some("rshared"));
}

#[test]
fn every_part_of_a_plan_is_where_others_look_for_it() {
    let spec = read(&full(), &around());
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.args().as_deref().unwrap(), ["sh", "-c"]);
    assert_eq!((process.user().uid(), process.user().gid(), process.user().umask()), (7, 8, Some(0o27)));
    assert_eq!(process.user().additional_gids().as_deref().unwrap(), [9]);
    assert_eq!(process.cwd(), Path::new("/work"));
    assert_eq!((process.terminal(), process.no_new_privileges()), (Some(true), Some(true)));
    assert_eq!(process.oom_score_adj(), Some(-5));
    assert_eq!(process.rlimits().as_ref().unwrap()[0].hard(), u64::MAX);
    assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 2);
    let root = spec.root().as_ref().unwrap();
    assert_eq!((root.path().as_path(), root.readonly()), (Path::new("/bundle/rootfs"), Some(true)));
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.devices().as_ref().unwrap()[0].gid(), Some(5));
    assert_eq!(linux.masked_paths().as_deref().unwrap(), ["/proc/kcore"]);
    assert_eq!(linux.readonly_paths().as_deref().unwrap(), ["/proc/sys"]);
    assert_eq!(linux.rootfs_propagation().as_deref(), Some("rshared"));
    assert_eq!(spec.annotations().as_ref().unwrap()["k"], "v");
    let hooks = spec.hooks().as_ref().unwrap();
    assert_eq!(hooks.poststop().as_ref().unwrap()[0].timeout(), Some(3));
    assert_eq!(hooks.create_container().as_ref().unwrap()[0].path(), Path::new("/bin/hook"));
    assert_eq!(hooks.poststop().as_ref().unwrap()[0].args(), &Some(vec!["/bin/hook".to_owned()]));
    assert!(hooks.poststart().is_none());
}

#[test]
fn mounts_have_their_options() {
    let spec = read(&full(), &around());
    let of = |target: &str| {
        let mounts = spec.mounts().as_ref().unwrap();
        let mount = mounts.iter().find(|mount| mount.destination() == Path::new(target)).unwrap();
        let source = mount.source().as_ref().unwrap().display().to_string();
        (mount.typ().clone().unwrap(), source, mount.options().clone().unwrap().join(","))
    };
    let expected = |kind: &str, source: &str, options: &str| (kind.into(), source.into(), options.into());
    assert_eq!(of("/dev"), expected("tmpfs", "tmpfs", "mode=755,noswap"));
    assert_eq!(of("/data"), expected("bind", "/srv", "rbind,rro,nosuid,rshared"));
    assert_eq!(of("/dev/shm"), expected("bind", "/bundle/shm", "bind,rprivate"));
    assert_eq!(of("/sys/fs/cgroup"), expected("cgroup", "cgroup", ""));
    assert_eq!(of("/image"), expected("bind", "/bundle/volumes/2", "rbind,rprivate"));
}

#[test]
fn namespaces_are_new_joined_or_the_hosts() {
    let namespaces = |plan: &LaunchPlan, around: &Surroundings| -> Vec<(LinuxNamespaceType, Option<String>)> {
        let spec = read(plan, around);
        let all = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        all.into_iter().map(|ns| (ns.typ(), ns.path().as_ref().map(|path| path.display().to_string()))).collect()
    };
    let own = namespaces(&full(), &around());
    let expected = [
        (LinuxNamespaceType::Mount, None),
        (LinuxNamespaceType::Pid, None),
        (LinuxNamespaceType::Network, Some("/proc/1/ns/net".to_owned())),
        (LinuxNamespaceType::Ipc, Some("/proc/1/ns/ipc".to_owned())),
        (LinuxNamespaceType::Cgroup, None),
    ];
    assert_eq!(own, expected);
    let shared = namespaces(&LaunchPlan { pid: PidNamespace::Pod, ..full() }, &around());
    assert_eq!(shared[1], (LinuxNamespaceType::Pid, Some("/bundle/pid".to_owned())));
    let host = LaunchPlan { pid: PidNamespace::Node, cgroup_namespace: false, ..full() };
    assert_eq!(namespaces(&host, &in_bundle(Path::new("/b"))), [(LinuxNamespaceType::Mount, None)]);
}

#[test]
fn limits_that_are_not_set_are_not_there() {
    let spec = read(&full(), &around());
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(1 << 20));
    assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(-1));
    assert_eq!(resources.cpu().as_ref().unwrap().shares(), None);
    assert_eq!(resources.unified().as_ref().unwrap()["memory.high"], "1G");
    assert_eq!(resources.hugepage_limits().as_ref().unwrap().len(), 1);
    let rules = resources.devices().as_ref().unwrap();
    assert!(!rules[0].allow() && rules[1].allow(), "all is denied before some is allowed");
    assert_eq!(rules[1].major(), Some(1));

    let plan = LaunchPlan { cgroups: CgroupPlan::default(), ..full() };
    assert!(read(&plan, &around()).linux().as_ref().unwrap().resources().as_ref().unwrap().unified().is_none());
    let bare = super::spec(&LaunchPlan::default(), &Surroundings::default());
    let resources = bare["linux"]["resources"].as_object().unwrap();
    assert_eq!(resources.keys().collect::<Vec<_>>(), ["devices"]);
    assert!(bare["linux"].get("rootfsPropagation").is_none());
    read(&LaunchPlan::default(), &Surroundings::default());
}

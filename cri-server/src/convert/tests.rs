use std::collections::BTreeMap;

use tripod_cri_api::v1::{
    self, Capability, CdiDevice, ContainerConfig, ContainerMetadata, HugepageLimit, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PortMapping, SeLinuxOption, SecurityProfile, Signal, security_profile::ProfileType,
};
use tripod_engine::{
    AppArmorProfile, ContainerImage, ContainerPid, PidMode, PodConfig, Protocol, SeccompProfile, plugin::Features,
};

use super::{container_config, pod_config, signal, update};

fn pod() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "web".into(),
            uid: "u".into(),
            namespace: "default".into(),
            attempt: 1,
        }),
        ..PodSandboxConfig::default()
    }
}

fn pod_with(change: impl FnOnce(&mut PodSandboxConfig)) -> Result<PodConfig, String> {
    let mut config = pod();
    change(&mut config);
    pod_config(&config, "", &BTreeMap::new(), None).map_err(|refusal| refusal.to_string())
}

fn sandbox_with(change: impl FnOnce(&mut LinuxSandboxSecurityContext)) -> Result<PodConfig, String> {
    pod_with(|config| {
        let mut context = LinuxSandboxSecurityContext::default();
        change(&mut context);
        config.linux =
            Some(LinuxPodSandboxConfig { security_context: Some(context), ..LinuxPodSandboxConfig::default() });
    })
}

fn container_in(
    pod: &PodConfig,
    change: impl FnOnce(&mut ContainerConfig),
) -> Result<tripod_engine::ContainerConfig, String> {
    let mut config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "nginx".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "nginx".into(), ..ImageSpec::default() }),
        ..ContainerConfig::default()
    };
    change(&mut config);
    container_config(&config, pod, ContainerImage::default(), BTreeMap::new()).map_err(|refusal| refusal.to_string())
}

fn container_with(change: impl FnOnce(&mut ContainerConfig)) -> Result<tripod_engine::ContainerConfig, String> {
    container_in(&pod_with(|_| {}).unwrap(), change)
}

fn security_with(
    pod: &PodConfig,
    change: impl FnOnce(&mut LinuxContainerSecurityContext),
) -> Result<tripod_engine::ContainerConfig, String> {
    container_in(pod, |config| {
        let mut context = LinuxContainerSecurityContext::default();
        change(&mut context);
        config.linux =
            Some(LinuxContainerConfig { security_context: Some(context), ..LinuxContainerConfig::default() });
    })
}

fn resources_with(change: impl FnOnce(&mut LinuxContainerResources)) -> Result<tripod_engine::ContainerConfig, String> {
    container_with(|config| {
        let mut resources = LinuxContainerResources::default();
        change(&mut resources);
        config.linux = Some(LinuxContainerConfig { resources: Some(resources), ..LinuxContainerConfig::default() });
    })
}

/// Holds a refusal against the words that must be in it: the object first, then the field.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, String>, words: &[&str]) {
    let message = result.unwrap_err();
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

fn profile(kind: ProfileType, name: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind.into(), localhost_ref: name.into() })
}

// === pods ===

#[test]
fn a_pod_needs_its_names() {
    refused(pod_with(|config| config.metadata = None), &["config.metadata"]);
    refused(
        pod_with(|config| config.metadata.as_mut().unwrap().uid.clear()),
        &["pod default/web", "config.metadata.uid"],
    );
    assert_eq!(pod_with(|_| {}).unwrap().attempt, 1);
}

#[test]
fn handlers_must_be_configured() {
    refused(
        pod_config(&pod(), "kata", &BTreeMap::new(), None).map_err(|refusal| refusal.to_string()),
        &["runtime_handler", "kata"],
    );
    assert_eq!(
        pod_config(&pod(), "kata", &[("kata".into(), Features::default())].into(), None).unwrap().runtime_handler,
        "kata"
    );
}

#[test]
fn namespaces_of_a_pod() {
    let options = |pid: NamespaceMode| NamespaceOption { pid: pid.into(), ..NamespaceOption::default() };
    assert_eq!(pod_with(|_| {}).unwrap().namespaces.pid, PidMode::Container);
    let of = |pid| sandbox_with(|context| context.namespace_options = Some(options(pid)));
    assert_eq!(of(NamespaceMode::Pod).unwrap().namespaces.pid, PidMode::Pod);
    assert_eq!(of(NamespaceMode::Container).unwrap().namespaces.pid, PidMode::Container);
    assert_eq!(of(NamespaceMode::Node).unwrap().namespaces.pid, PidMode::Node);
    refused(of(NamespaceMode::Target), &["namespace_options.pid"]);
    let network = |network| {
        sandbox_with(|context| {
            context.namespace_options = Some(NamespaceOption { network, ..options(NamespaceMode::Pod) });
        })
    };
    assert!(network(NamespaceMode::Node.into()).unwrap().namespaces.host_network);
    refused(network(NamespaceMode::Container.into()), &["namespace_options.network"]);
    refused(network(77), &["namespace_options.network", "77"]);
}

#[test]
fn the_sandbox_itself_has_nothing_to_confine() {
    sandbox_with(|context| context.seccomp = profile(ProfileType::RuntimeDefault, "")).unwrap();
    sandbox_with(|context| context.seccomp = profile(ProfileType::Unconfined, "")).unwrap();
    sandbox_with(|context| context.seccomp = profile(ProfileType::Localhost, "/p.json")).unwrap();
    refused(
        sandbox_with(|context| context.seccomp = profile(ProfileType::Localhost, "p.json")),
        &["seccomp", "p.json"],
    );
    let label = |level: &str| Some(SeLinuxOption { level: level.into(), ..SeLinuxOption::default() });
    refused(sandbox_with(|context| context.selinux_options = label("s0,c1")), &["selinux_options.level"]);
    assert_eq!(sandbox_with(|context| context.selinux_options = label("s0")).unwrap().selinux.level, "s0");
    sandbox_with(|context| context.selinux_options = Some(SeLinuxOption::default())).unwrap();
    let group = Some(Int64Value { value: 1 });
    refused(sandbox_with(|context| context.run_as_group = group), &["run_as_group"]);
}

#[test]
fn ports_lead_from_the_host() {
    let port = |protocol: i32, host_port, container_port, host_ip: &str| PortMapping {
        protocol,
        host_port,
        container_port,
        host_ip: host_ip.into(),
    };
    let ports = |list: Vec<PortMapping>| pod_with(|config| config.port_mappings = list).map(|config| config.ports);
    let found = ports(vec![port(0, 0, 80, ""), port(1, 53, 5353, "::1")]).unwrap();
    assert_eq!(found.len(), 1, "an entry without a host port only informs");
    assert_eq!((found[0].protocol, found[0].host_port, found[0].container_port), (Protocol::Udp, 53, 5353));
    refused(ports(vec![port(0, 70_000, 80, "")]), &["port_mappings[0].host_port"]);
    refused(ports(vec![port(0, 80, 0, "")]), &["port_mappings[0].container_port"]);
    refused(ports(vec![port(0, 80, 80, "localhost")]), &["host_ip", "localhost"]);
    refused(ports(vec![port(9, 80, 80, "")]), &["protocol"]);
    let host = sandbox_with(|context| {
        let network = NamespaceMode::Node.into();
        context.namespace_options = Some(NamespaceOption { network, ..NamespaceOption::default() });
    });
    assert!(host.unwrap().ports.is_empty());
}

#[test]
fn texts_that_become_lines_of_files_are_single_words() {
    let dns = |server: &str| {
        pod_with(|config| {
            config.dns_config = Some(v1::DnsConfig { servers: vec![server.into()], ..v1::DnsConfig::default() });
        })
    };
    dns("fe80::1%eth0").unwrap();
    refused(dns("1.1.1.1\nsearch evil"), &["dns_config.servers"]);
    refused(pod_with(|config| config.hostname = "a b".into()), &["hostname"]);
    refused(pod_with(|config| config.hostname = "a".repeat(65)), &["hostname", "64"]);
}

#[test]
fn cgroup_parents_are_paths_or_slices() {
    let parent = |text: &str| {
        pod_with(|config| {
            config.linux =
                Some(LinuxPodSandboxConfig { cgroup_parent: text.into(), ..LinuxPodSandboxConfig::default() });
        })
        .map(|config| config.cgroup_parent)
    };
    assert_eq!(parent("/kubepods/burstable/pod1").unwrap().as_deref(), Some("/kubepods/burstable/pod1"));
    assert_eq!(parent("").unwrap(), None);
    assert_eq!(parent("kubepods-burstable.slice").unwrap().as_deref(), Some("kubepods-burstable.slice"));
    refused(parent("kubepods/burstable"), &["cgroup_parent", "slice"]);
    refused(parent("/a/../../b"), &["cgroup_parent"]);
}

// === containers ===

#[test]
fn the_log_stays_in_the_pods_folder() {
    let pod = pod_with(|config| config.log_directory = "/var/log/pods/x".into()).unwrap();
    let log = |path: &str| container_in(&pod, |config| config.log_path = path.into()).map(|config| config.log_path);
    assert_eq!(log("nginx/0.log").unwrap().unwrap(), std::path::Path::new("/var/log/pods/x/nginx/0.log"));
    assert_eq!(log("").unwrap(), None);
    refused(log("../../../etc/cron.d/x"), &["container \"nginx\" of pod default/web", "log_path"]);
    refused(log("/etc/cron.d/x"), &["log_path"]);
}

#[test]
fn environment_is_checked() {
    let env = |key: &str, value: &[u8]| {
        container_with(|config| config.envs = vec![KeyValue { key: key.into(), value: value.to_vec() }])
    };
    assert_eq!(env("A", b"b=c").unwrap().env, [("A".to_owned(), "b=c".to_owned())]);
    refused(env("", b"x"), &["envs"]);
    refused(env("A=B", b"x"), &["envs", "A=B"]);
    refused(env("A", b"\xff"), &["envs", "A"]);
    refused(env("A", b"x\0y"), &["envs A"]);
}

#[test]
fn mounts_are_checked() {
    let mount = |change: fn(&mut Mount)| {
        let mut mount = Mount { container_path: "/c".into(), host_path: "/h".into(), ..Mount::default() };
        change(&mut mount);
        container_with(|config| config.mounts = vec![mount])
    };
    mount(|mount| mount.readonly = true).unwrap();
    refused(mount(|mount| mount.container_path = "c".into()), &["mounts[0].container_path"]);
    refused(mount(|mount| mount.host_path.clear()), &["mounts[0].host_path"]);
    refused(mount(|mount| mount.recursive_read_only = true), &["recursive_read_only"]);
    let found = mount(|mount| mount.mount_options = ["noexec", "nosuid", "noexec"].map(String::from).into()).unwrap();
    assert!(found.mounts[0].options.noexec && found.mounts[0].options.nosuid && !found.mounts[0].options.nodev);
    refused(mount(|mount| mount.mount_options = vec!["nodev".into(), "exec".into()]), &["mount_options", "exec"]);
    refused(mount(|mount| mount.mount_options = vec!["noexec,nodev".into()]), &["mount_options", "noexec,nodev"]);
    refused(mount(|mount| mount.mount_options = vec![String::new()]), &["mount_options"]);
    refused(mount(|mount| mount.image_sub_path = "x".into()), &["image_sub_path"]);
    refused(
        mount(|mount| mount.propagation = MountPropagation::PropagationBidirectional.into()),
        &["propagation", "privileged"],
    );
    refused(
        mount(|mount| {
            (mount.readonly, mount.recursive_read_only) = (true, true);
            mount.propagation = MountPropagation::PropagationHostToContainer.into();
        }),
        &["recursive_read_only"],
    );
}

#[test]
fn devices_are_checked_and_cdi_is_refused() {
    let device = |permissions: &str| {
        let device =
            v1::Device { host_path: "/dev/null".into(), permissions: permissions.into(), ..v1::Device::default() };
        container_with(|config| config.devices = vec![device])
    };
    let found = &device("").unwrap().devices[0];
    assert_eq!(
        (found.permissions.as_str(), found.container_path.as_path()),
        ("rwm", std::path::Path::new("/dev/null"))
    );
    refused(device("rx"), &["permissions"]);
    refused(
        container_with(|config| config.cdi_devices = vec![CdiDevice { name: "v/c=d".into() }]),
        &["CDI_devices", "v/c=d"],
    );
    refused(
        container_with(|config| {
            config.annotations.insert("cdi.k8s.io/x".into(), "v/c=d".into());
        }),
        &["annotations", "cdi.k8s.io/x"],
    );
}

#[test]
fn a_privileged_container_needs_a_privileged_pod() {
    let plain = pod_with(|_| {}).unwrap();
    refused(security_with(&plain, |context| context.privileged = true), &["privileged"]);
    let privileged = sandbox_with(|context| context.privileged = true).unwrap();
    let config = security_with(&privileged, |context| {
        context.privileged = true;
        // Without effect on a privileged container, so nothing to refuse.
        context.seccomp = profile(ProfileType::Localhost, "/p.json");
        context.apparmor = profile(ProfileType::Localhost, "p");
    });
    let security = config.unwrap().security;
    assert!(security.privileged);
    assert_eq!(security.apparmor, AppArmorProfile::Localhost("p".into()), "a named profile confines it all the same");
}

#[test]
fn seccomp_profiles_come_in_two_fields() {
    let pod = pod_with(|_| {}).unwrap();
    let of = |kind, name: &str| security_with(&pod, |context| context.seccomp = profile(kind, name));
    let asked = |kind, name: &str| of(kind, name).unwrap().security.seccomp;
    let local = || SeccompProfile::Localhost("/p.json".into());
    assert_eq!(security_with(&pod, |_| {}).unwrap().security.seccomp, SeccompProfile::Unconfined);
    assert_eq!(asked(ProfileType::Unconfined, ""), SeccompProfile::Unconfined);
    assert_eq!(asked(ProfileType::RuntimeDefault, ""), SeccompProfile::RuntimeDefault);
    assert_eq!(asked(ProfileType::Localhost, "/p.json"), local());
    refused(of(ProfileType::Localhost, "p.json"), &["seccomp", "p.json", "absolute"]);
    refused(of(ProfileType::Localhost, ""), &["seccomp", "empty"]);
    refused(of(ProfileType::RuntimeDefault, "/p.json"), &["seccomp", "localhost_ref"]);
    let unknown = SecurityProfile { profile_type: 7, ..SecurityProfile::default() };
    refused(security_with(&pod, |context| context.seccomp = Some(unknown)), &["seccomp", "unknown type"]);

    #[allow(deprecated)]
    let former = |text: &str| security_with(&pod, |context| context.seccomp_profile_path = text.into());
    let asked = |text: &str| former(text).unwrap().security.seccomp;
    assert_eq!(asked("unconfined"), SeccompProfile::Unconfined);
    assert_eq!(asked("runtime/default"), SeccompProfile::RuntimeDefault);
    assert_eq!(asked("localhost//p.json"), local());
    refused(former("localhost/p.json"), &["seccomp", "absolute"]);
    refused(former("mine"), &["seccomp_profile_path", "mine"]);
    #[allow(deprecated)]
    let both = security_with(&pod, |context| {
        context.seccomp = profile(ProfileType::Unconfined, "");
        context.seccomp_profile_path = "runtime/default".into();
    });
    assert_eq!(both.unwrap().security.seccomp, SeccompProfile::Unconfined, "the field of today wins");
}

#[test]
fn apparmor_profiles_come_in_two_fields() {
    let pod = pod_with(|_| {}).unwrap();
    let of = |kind, name: &str| security_with(&pod, |context| context.apparmor = profile(kind, name));
    let asked = |kind, name: &str| of(kind, name).unwrap().security.apparmor;
    let mine = || AppArmorProfile::Localhost("mine".into());
    assert_eq!(security_with(&pod, |_| {}).unwrap().security.apparmor, AppArmorProfile::Unset);
    assert_eq!(asked(ProfileType::Unconfined, ""), AppArmorProfile::Unconfined);
    assert_eq!(asked(ProfileType::RuntimeDefault, ""), AppArmorProfile::RuntimeDefault);
    assert_eq!(asked(ProfileType::Localhost, "mine"), mine());
    assert_eq!(asked(ProfileType::Localhost, "localhost/mine"), mine());
    for nameless in ["", "localhost/", "a\nb", "a\0b"] {
        refused(of(ProfileType::Localhost, nameless), &["security_context.apparmor"]);
    }
    refused(of(ProfileType::RuntimeDefault, "mine"), &["apparmor", "localhost_ref"]);
    let unknown = SecurityProfile { profile_type: 7, ..SecurityProfile::default() };
    refused(security_with(&pod, |context| context.apparmor = Some(unknown)), &["apparmor", "unknown type"]);

    #[allow(deprecated)]
    let former = |text: &str| security_with(&pod, |context| context.apparmor_profile = text.into());
    let asked = |text: &str| former(text).unwrap().security.apparmor;
    assert_eq!(asked("unconfined"), AppArmorProfile::Unconfined);
    assert_eq!(asked("runtime/default"), AppArmorProfile::RuntimeDefault);
    assert_eq!(asked("localhost/mine"), mine());
    refused(former("mine"), &["apparmor_profile", "mine"]);
    refused(former("localhost/"), &["apparmor_profile"]);
    #[allow(deprecated)]
    let both = security_with(&pod, |context| {
        context.apparmor = profile(ProfileType::Localhost, "mine");
        context.apparmor_profile = "localhost/other".into();
    });
    assert_eq!(both.unwrap().security.apparmor, mine(), "the field of today wins");
}

#[test]
fn selinux_labels_are_checked_wherever_they_take_effect() {
    let label = |kind: &str, level: &str| {
        Some(SeLinuxOption { r#type: kind.into(), level: level.into(), ..SeLinuxOption::default() })
    };
    let pod = pod_with(|_| {}).unwrap();
    let of = |kind: &str, level: &str| security_with(&pod, |context| context.selinux_options = label(kind, level));
    assert!(of("", "").unwrap().security.selinux.is_empty());
    for level in ["s0", "s15", "s0-s0", "s0:c4,c5", "s0:c0.c1023", "s0-s0:c0.c3,c7", "s0:c7"] {
        let found = of("spc_t", level).unwrap().security.selinux;
        assert_eq!((found.kind.as_str(), found.level.as_str()), ("spc_t", level));
    }
    for level in
        ["s0,c4,c5", "s", "s16", "s1-s0", "s0:", "s0:c1024", "s0:c5.c4", "s0:c+1", "s0:c1,", "c1", "s0:c1\n", "s0 "]
    {
        refused(of("", level), &["selinux_options.level", "no SELinux level"]);
    }
    for kind in ["a:b", "a b", "a\n", "a\0", "\u{e4}", &"x".repeat(64)] {
        refused(of(kind, ""), &["selinux_options.type"]);
    }
    let privileged = sandbox_with(|context| context.privileged = true).unwrap();
    let wrong = security_with(&privileged, |context| {
        (context.privileged, context.selinux_options) = (true, label("", "s0,c4"));
    });
    refused(wrong, &["selinux_options.level"]);
}

#[test]
fn the_pid_namespace_of_a_container_is_its_pods_unless_said_otherwise() {
    let pods = [PidMode::Container, PidMode::Pod, PidMode::Node].map(|pid| {
        let mut pod = pod_with(|_| {}).unwrap();
        pod.namespaces.pid = pid;
        pod
    });
    let ask = |pod: &PodConfig, pid: NamespaceMode, target: &str| {
        let options = NamespaceOption { pid: pid.into(), target_id: target.into(), ..NamespaceOption::default() };
        security_with(pod, |context| context.namespace_options = Some(options)).map(|config| config.security.pid)
    };
    let [container, shared, host] = &pods;
    assert_eq!(ask(container, NamespaceMode::Pod, "").unwrap(), ContainerPid::Container);
    assert_eq!(ask(shared, NamespaceMode::Pod, "").unwrap(), ContainerPid::Pod);
    assert_eq!(ask(host, NamespaceMode::Node, "").unwrap(), ContainerPid::Node);
    assert_eq!(ask(shared, NamespaceMode::Target, "abc").unwrap(), ContainerPid::Target("abc".into()));
    refused(ask(shared, NamespaceMode::Target, ""), &["target_id"]);
    refused(ask(shared, NamespaceMode::Node, ""), &["pid"]);
    let network = NamespaceOption { network: NamespaceMode::Node.into(), ..NamespaceOption::default() };
    refused(security_with(shared, |context| context.namespace_options = Some(network)), &["namespace_options.network"]);
}

#[test]
fn users_and_groups() {
    let pod = pod_with(|_| {}).unwrap();
    let id = |value| Some(Int64Value { value });
    let config = security_with(&pod, |context| (context.run_as_user, context.run_as_group) = (id(1000), id(0)));
    let security = config.unwrap().security;
    assert_eq!((security.uid, security.gid), (Some(1000), Some(0)));
    refused(security_with(&pod, |context| context.run_as_group = id(1)), &["run_as_group"]);
    for value in [-1, i64::from(u32::MAX)] {
        refused(security_with(&pod, |context| context.run_as_user = id(value)), &["run_as_user"]);
    }
    refused(
        security_with(&pod, |context| (context.run_as_user, context.run_as_username) = (id(1), "www".into())),
        &["run_as_username"],
    );
    refused(security_with(&pod, |context| context.supplemental_groups = vec![-5]), &["supplemental_groups"]);
    refused(security_with(&pod, |context| context.supplemental_groups_policy = 7), &["supplemental_groups_policy"]);
}

#[test]
fn capabilities_in_any_spelling() {
    let pod = pod_with(|_| {}).unwrap();
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let with = |add: &[&str], drop: &[&str], ambient: &[&str]| {
        let capabilities = Capability {
            add_capabilities: names(add),
            drop_capabilities: names(drop),
            add_ambient_capabilities: names(ambient),
        };
        security_with(&pod, |context| context.capabilities = Some(capabilities)).map(|config| config.security)
    };
    let security = with(&["net_admin", "CAP_CHOWN"], &["ALL"], &["SYS_TIME"]).unwrap();
    assert_eq!(security.add_capabilities, [12, 0, 25]);
    assert_eq!(security.ambient_capabilities, [25]);
    assert!(security.drop_all_capabilities && !security.add_all_capabilities);
    assert!(with(&["ALL"], &[], &[]).unwrap().add_all_capabilities);
    refused(with(&["SUPERPOWER"], &[], &[]), &["add_capabilities", "SUPERPOWER"]);
}

#[test]
fn limits_are_checked() {
    let found = resources_with(|resources| {
        resources.cpu_quota = -1;
        resources.cpu_shares = 1;
        resources.memory_limit_in_bytes = 64 << 20;
        resources.cpuset_cpus = "0-1,3".into();
        resources.hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 0 }];
        resources.unified.insert("memory.high".into(), "1G".into());
    });
    let found = found.unwrap();
    assert_eq!((found.resources.cpu_quota, found.resources.cpu_shares), (Some(-1), Some(2)));
    assert_eq!((found.resources.memory_limit, found.resources.memory_swap), (Some(64 << 20), None));
    assert_eq!((found.oom_score_adj, found.resources.hugepages["2MB"]), (Some(0), 0));

    refused(resources_with(|resources| resources.memory_limit_in_bytes = -2), &["memory_limit_in_bytes"]);
    refused(resources_with(|resources| resources.memory_limit_in_bytes = 4095), &["memory_limit_in_bytes", "4096"]);
    refused(resources_with(|resources| resources.memory_swap_limit_in_bytes = 1), &["memory_swap_limit_in_bytes"]);
    for period in [-1, 5, 999, 1_000_001, i64::MIN, i64::MAX] {
        refused(resources_with(|resources| resources.cpu_period = period), &["cpu_period", &period.to_string()]);
    }
    for quota in [-2, 5, 999, 1 << 44, i64::MIN, i64::MAX] {
        refused(resources_with(|resources| resources.cpu_quota = quota), &["cpu_quota", &quota.to_string()]);
    }
    let most = resources_with(|resources| (resources.cpu_quota, resources.cpu_period) = ((1 << 44) - 1, 1_000_000));
    assert_eq!(most.unwrap().resources.cpu_quota, Some((1 << 44) - 1));
    let shares = resources_with(|resources| resources.cpu_shares = i64::MAX);
    assert_eq!(shares.unwrap().resources.cpu_shares, Some(262_144), "as the kernel does");
    refused(resources_with(|resources| resources.oom_score_adj = 1001), &["oom_score_adj"]);
    refused(resources_with(|resources| resources.cpuset_cpus = "0;rm".into()), &["cpuset_cpus"]);
    for key in ["../memory.high", "cgroup.procs", "memory", ".a.b"] {
        refused(resources_with(|resources| drop(resources.unified.insert(key.into(), "1".into()))), &["unified"]);
    }
    refused(
        resources_with(|resources| {
            resources.hugepage_limits = vec![HugepageLimit { page_size: "2M/../x".into(), limit: 1 }];
        }),
        &["hugepage_limits"],
    );
    refused(
        resources_with(|resources| {
            (resources.memory_limit_in_bytes, resources.memory_swap_limit_in_bytes) = (32 << 20, 16 << 20);
        }),
        &["memory_swap_limit_in_bytes"],
    );
}

#[test]
fn a_larger_memory_limit_takes_the_swap_limit_along() {
    let now = tripod_shim_protocol::Resources { memory_swap: Some(100 << 20), ..Default::default() };
    let ask = |limit| LinuxContainerResources { memory_limit_in_bytes: limit, ..LinuxContainerResources::default() };
    assert_eq!(update(&now, &ask(200 << 20)).unwrap().memory_swap, Some(200 << 20));
    assert_eq!(update(&now, &ask(50 << 20)).unwrap().memory_swap, None);
    let wrong = LinuxContainerResources { cpu_period: 5, ..LinuxContainerResources::default() };
    assert!(update(&now, &wrong).unwrap_err().to_string().contains("linux.cpu_period"));
}

#[test]
fn signals_there_and_back() {
    for (wire, kernel) in [
        (Signal::Sigterm, 15),
        (Signal::Sigkill, 9),
        (Signal::Sigusr1, 10),
        (Signal::Sigrtmin, 34),
        (Signal::Sigrtminplus1, 35),
        (Signal::Sigrtminplus15, 49),
        (Signal::Sigrtmaxminus14, 50),
        (Signal::Sigrtmaxminus1, 63),
        (Signal::Sigrtmax, 64),
    ] {
        assert_eq!(signal::from_wire("s", wire.into()).unwrap(), Some(kernel), "{wire:?}");
        assert_eq!(signal::to_wire(kernel), wire);
    }
    // Every signal of the contract has a number of the kernel's.
    for wire in 1..=Signal::Sigrtmax as i32 {
        assert!(signal::from_wire("s", wire).unwrap().is_some(), "{wire}");
    }
    assert_eq!(signal::from_wire("s", 0).unwrap(), None);
    signal::from_wire("s", 66).unwrap_err();
    assert_eq!(signal::to_wire(17), Signal::Sigchld);
}

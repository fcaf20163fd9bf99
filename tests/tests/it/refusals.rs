//! Requests that contradict themselves or ask for what cannot be: refused by the name of the field, before anything
//! exists.

use tonic::Code;
use tripod_cri_api::v1::{
    ContainerConfig, Device, Int64Value, LinuxContainerResources, MountPropagation, NamespaceMode, NamespaceOption,
    PodSandboxConfig, StatusRequest,
};
use tripod_tests::{Leaks, Node, host_pod, mount, pod, security_of, shell, tests};

use crate::userns::{BASE, ids, with};

tests![
    contradictions_of_a_pod,
    contradictions_of_a_container,
    limits_that_cannot_be,
    a_user_namespace_is_made_or_what_it_lacks_is_told,
];

fn namespaces(change: fn(&mut NamespaceOption)) -> NamespaceOption {
    let mut options = NamespaceOption {
        pid: NamespaceMode::Container.into(),
        network: NamespaceMode::Node.into(),
        ..Default::default()
    };
    change(&mut options);
    options
}

async fn contradictions_of_a_pod(node: &mut Node) {
    let cri = node.ready().await;
    let before = Leaks::snapshot(&[node.state()]);
    let refused = async |field: &str, change: fn(&mut PodSandboxConfig)| {
        let mut config = pod("refused");
        change(&mut config);
        let error = cri.run_pod(&config).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(field), "{field}: {error}");
    };
    fn options(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap()
    }
    refused("namespace_options.pid", |config| options(config).pid = NamespaceMode::Target.into()).await;
    refused("namespace_options.network", |config| options(config).network = NamespaceMode::Container.into()).await;
    refused("namespace_options.ipc", |config| options(config).ipc = NamespaceMode::Target.into()).await;
    refused("namespace_options.ipc", |config| options(config).ipc = 9).await;
    refused("run_as_group", |config| {
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.run_as_group = Some(Int64Value { value: 1 });
    })
    .await;
    refused("sysctls", |config| {
        config.linux.as_mut().unwrap().sysctls.insert("kernel/../../sysrq-trigger".into(), "c".into());
    })
    .await;
    assert!(before.left(&[]).await.is_empty() && cri.pods().await.is_empty());
}

async fn contradictions_of_a_container(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let before = Leaks::snapshot(&[node.state(), node.root().join("containers")]);
    let refused = async |words: &[&str], change: fn(&mut ContainerConfig)| {
        let mut container = shell("refused", "true");
        change(&mut container);
        let error = cri.create(&pod, &config, &container).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(words.iter().all(|word| error.message().contains(word)), "{words:?}: {error}");
    };
    refused(&["run_as_group", "run_as_user"], |config| {
        security_of(config).run_as_group = Some(Int64Value { value: 1 });
    })
    .await;
    refused(&["namespace_options.pid", "NODE"], |config| {
        security_of(config).namespace_options = Some(namespaces(|options| options.pid = NamespaceMode::Node.into()));
    })
    .await;
    refused(&["namespace_options.ipc", "NODE"], |config| {
        security_of(config).namespace_options = Some(namespaces(|options| options.ipc = NamespaceMode::Node.into()));
    })
    .await;
    refused(&["target_id"], |config| {
        security_of(config).namespace_options = Some(namespaces(|options| options.pid = NamespaceMode::Target.into()));
    })
    .await;
    refused(&["/dev/no-such-device"], |config| {
        config.devices = vec![Device { host_path: "/dev/no-such-device".into(), ..Device::default() }];
    })
    .await;
    refused(&["/etc/passwd", "device"], |config| {
        config.devices = vec![Device { host_path: "/etc/passwd".into(), ..Device::default() }];
    })
    .await;
    refused(&["permissions", "rwx"], |config| {
        config.devices = vec![Device { host_path: "/dev/null".into(), permissions: "rwx".into(), ..Device::default() }];
    })
    .await;
    refused(&["recursive_read_only", "readonly"], |config| {
        config.mounts = vec![mount("/tmp", "/volume")];
        config.mounts[0].recursive_read_only = true;
    })
    .await;
    refused(&["propagation", "privileged"], |config| {
        config.mounts = vec![mount("/tmp", "/volume")];
        config.mounts[0].propagation = MountPropagation::PropagationBidirectional.into();
    })
    .await;
    refused(&["/no/such/source"], |config| config.mounts = vec![mount("/no/such/source", "/volume")]).await;
    refused(&["masked_paths"], |config| security_of(config).masked_paths = vec!["proc/kcore".into()]).await;
    let left = before.left(&[]).await;
    assert!(left.is_empty() && cri.containers().await.is_empty(), "{left:?}");
}

async fn limits_that_cannot_be(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let before = Leaks::snapshot(&[node.state(), node.root().join("containers")]);
    let refused = async |field: &str, change: fn(&mut LinuxContainerResources)| {
        let mut container = shell("refused", "true");
        change(container.linux.as_mut().unwrap().resources.get_or_insert_default());
        let error = cri.create(&pod, &config, &container).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(field), "{field}: {error}");
    };
    refused("memory_limit_in_bytes", |limits| limits.memory_limit_in_bytes = -2).await;
    refused("memory_swap_limit_in_bytes", |limits| limits.memory_swap_limit_in_bytes = i64::MIN).await;
    refused("memory_swap_limit_in_bytes", |limits| {
        (limits.memory_limit_in_bytes, limits.memory_swap_limit_in_bytes) = (64 << 20, 32 << 20);
    })
    .await;
    refused("cpu_shares", |limits| limits.cpu_shares = -1).await;
    refused("cpu_period", |limits| limits.cpu_period = -100_000).await;
    refused("cpu_period", |limits| limits.cpu_period = 5).await;
    refused("cpu_quota", |limits| limits.cpu_quota = 5).await;
    refused("cpu_quota", |limits| limits.cpu_quota = -5).await;
    refused("memory_limit_in_bytes", |limits| limits.memory_limit_in_bytes = 4095).await;
    refused("oom_score_adj", |limits| limits.oom_score_adj = 1001).await;
    refused("cpuset_cpus", |limits| limits.cpuset_cpus = "0-".into()).await;
    refused("cpuset_mems", |limits| limits.cpuset_mems = "first".into()).await;
    let left = before.left(&[]).await;
    assert!(left.is_empty() && cri.containers().await.is_empty(), "{left:?}");
}

async fn a_user_namespace_is_made_or_what_it_lacks_is_told(node: &mut Node) {
    let cri = node.ready().await;
    let status = cri.runtime().status(StatusRequest::default()).await.unwrap().into_inner();
    let able = status.runtime_handlers[0].features.unwrap().user_namespaces;
    let config = with(pod("main"), ids(BASE));
    let made = cri.run_pod(&config).await;
    if able {
        made.unwrap();
        return;
    }
    let error = made.unwrap_err();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let old = numbers.next().zip(numbers.next()).unwrap() < (5, 19);
    let lacks = if old { format!("need Linux 5.19 or newer, this is {}", release.trim()) } else { "handler".into() };
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains(&lacks) && error.message().contains("hostUsers"), "{error}");
}

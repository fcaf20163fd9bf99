//! Pods (contract: lines 8 to 14).

use std::{
    collections::HashMap,
    fs,
    io::Read,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use tripod_cri_api::v1::{
    DnsConfig, ListPodSandboxRequest, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxFilter,
    PodSandboxState, PodSandboxStateValue, PortMapping, Protocol,
};
use tripod_tests::{Cri, Node, cgroup, eventually, host_pod, pod, security_of, shell, tests};

tests![
    stop_and_remove_are_idempotent_and_give_back_addresses,
    labels_and_annotations_come_back_and_lists_are_filtered,
    a_pod_has_an_address_of_each_family,
    a_pod_on_the_host_network_sees_the_host,
    host_ports_lead_to_the_pod_until_it_stops,
    pods_reach_each_other_and_nothing_of_the_daemon,
    sysctls_are_those_of_the_pod_alone,
    names_and_resolvers_are_as_asked,
    shared_memory_is_that_of_the_pod,
    a_shared_pid_namespace_reaps_orphans,
    a_debug_container_enters_the_target,
    no_cgroup_is_left_below_the_parent,
];

/// 8.
async fn stop_and_remove_are_idempotent_and_give_back_addresses(node: &mut Node) {
    let cri = node.ready().await;
    let (id, container) = cri.run_in_pod(&pod("stop"), &shell("main", "sleep 1000")).await.unwrap();
    cri.stop_pod(&id).await.unwrap();
    assert_eq!(cri.status(&container).await.unwrap().exit_code, 137);
    assert!(fs::read_dir("/run/netns").unwrap().next().is_none(), "the network namespace is gone");
    assert!(!node.left_in_root().iter().any(|path| path.contains(&format!("network/{id}"))), "so is the lease");
    cri.stop_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    for unknown in ["", "0123456789abcdef"].into_iter().skip(1) {
        cri.stop_pod(unknown).await.unwrap();
        cri.remove_pod(unknown).await.unwrap();
        cri.stop(unknown, 0).await.unwrap();
        cri.remove(unknown).await.unwrap();
    }
    // Remove stops first.
    let (id, _) = cri.run_in_pod(&pod("stop"), &shell("main", "sleep 1000")).await.unwrap();
    cri.remove_pod(&id).await.unwrap();
    assert!(cri.containers().await.is_empty());
}

async fn filtered(cri: &Cri, filter: PodSandboxFilter) -> Vec<String> {
    let answer = cri.runtime().list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await.unwrap();
    answer.into_inner().items.into_iter().map(|pod| pod.metadata.unwrap().name).collect()
}

/// 9.
async fn labels_and_annotations_come_back_and_lists_are_filtered(node: &mut Node) {
    let cri = node.start().await;
    let odd = HashMap::from([
        ("empty".to_owned(), String::new()),
        ("lines".to_owned(), "one\ntwo\t\"three\"\\".to_owned()),
        ("größe/ключ".to_owned(), "\u{1f980}\u{0}".to_owned()),
    ]);
    let mut config = host_pod("one");
    config.labels.extend([("tier".to_owned(), "web".to_owned())]);
    config.annotations.clone_from(&odd);
    let one = cri.run_pod(&config).await.unwrap();
    let two = cri.run_pod(&host_pod("two")).await.unwrap();
    let status = cri.pod(&one).await.unwrap();
    assert_eq!((status.labels, status.annotations), (config.labels, odd));

    let id = |id: &str| PodSandboxFilter { id: id.to_owned(), ..Default::default() };
    assert_eq!(filtered(&cri, id(&two)).await, ["two"]);
    assert_eq!(filtered(&cri, id(&two[..12])).await, ["two"]);
    assert!(filtered(&cri, id("no such pod")).await.is_empty());
    let labels = |pairs: &[(&str, &str)]| PodSandboxFilter {
        label_selector: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Default::default()
    };
    assert_eq!(filtered(&cri, labels(&[("tier", "web"), ("app", "one")])).await, ["one"]);
    assert!(filtered(&cri, labels(&[("tier", "web"), ("app", "two")])).await.is_empty());
    cri.stop_pod(&two).await.unwrap();
    let state = |state: PodSandboxState| PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: state.into() }),
        ..Default::default()
    };
    assert_eq!(filtered(&cri, state(PodSandboxState::SandboxReady)).await, ["one"]);
    assert_eq!(filtered(&cri, state(PodSandboxState::SandboxNotready)).await, ["two"]);
}

/// 10.
async fn a_pod_has_an_address_of_each_family(node: &mut Node) {
    let cri = node.ready().await;
    let (id, container) = cri.run_in_pod(&pod("dual"), &shell("main", "sleep 1000")).await.unwrap();
    let network = cri.pod(&id).await.unwrap().network.unwrap();
    let (first, second) = (network.ip, network.additional_ips[0].ip.clone());
    assert!(first.starts_with("10.86.") && second.starts_with("fd74:") && network.additional_ips.len() == 1);
    let addresses = cri.sh(&container, "ip addr show eth0").await;
    assert!(addresses.contains(&first) && addresses.contains(&second), "{addresses}");
    cri.sh(&container, "ping -c1 -w5 192.0.2.10 >&2").await;
    cri.sh(&container, "ping6 -c1 -w5 2001:db8::10 >&2").await;
}

/// 10.
async fn a_pod_on_the_host_network_sees_the_host(node: &mut Node) {
    let cri = node.ready().await;
    let (_, container) = cri.run_in_pod(&host_pod("host"), &shell("main", "sleep 1000")).await.unwrap();
    let links = cri.sh(&container, "ip link; hostname").await;
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(links.contains("uplink") && links.ends_with(hostname.trim()), "{links}");
}

fn port(protocol: Protocol, container_port: i32, host_port: i32) -> PortMapping {
    PortMapping { protocol: protocol.into(), container_port, host_port, host_ip: String::new() }
}

fn greeting(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn echoed(socket: &UdpSocket, address: &str) -> Option<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.send_to(b"ping", address).ok()?;
    let mut buffer = [0; 16];
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// 11.
async fn host_ports_lead_to_the_pod_until_it_stops(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = pod("ports");
    let local = PortMapping { host_ip: "127.0.0.1".into(), ..port(Protocol::Tcp, 81, 8081) };
    config.port_mappings = vec![port(Protocol::Tcp, 80, 8080), local, port(Protocol::Udp, 53, 8053)];
    let servers = "nc -ll -p 80 -e echo hello & nc -ll -p 81 -e echo local & wait";
    let (id, _) = cri.run_in_pod(&config, &shell("main", servers)).await.unwrap();
    for address in ["192.0.2.10:8080", "127.0.0.1:8080", "[2001:db8::10]:8080"] {
        eventually(address, Duration::from_secs(20), async || greeting(address).filter(|text| text == "hello\n")).await;
    }
    let mut echo = node.udp_echo(&id, 53);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    eventually("the local port", Duration::from_secs(20), async || greeting("127.0.0.1:8081")).await;
    assert_eq!(greeting("192.0.2.10:8081"), None, "open on loopback alone");
    eventually("UDP", Duration::from_secs(20), async || {
        echoed(&socket, "192.0.2.10:8053").filter(|text| text == "ping")
    })
    .await;
    echo.kill().unwrap();
    echo.wait().unwrap();
    cri.stop_pod(&id).await.unwrap();
    for address in ["192.0.2.10:8080", "127.0.0.1:8081", "[2001:db8::10]:8080"] {
        assert_eq!(greeting(address), None, "{address} is closed");
    }
    // The next pod gets the port, and what the kernel remembers of the client's packets does not lead to the old one.
    config.metadata.as_mut().unwrap().attempt = 1;
    let (id, _) = cri.run_in_pod(&config, &shell("main", servers)).await.unwrap();
    let mut echo = node.udp_echo(&id, 53);
    eventually("UDP again", Duration::from_secs(20), async || {
        echoed(&socket, "192.0.2.10:8053").filter(|text| text == "ping")
    })
    .await;
    echo.kill().unwrap();
    echo.wait().unwrap();
}

/// Two pods talk over the bridge; a container sees neither descriptors nor mounts of the daemon.
async fn pods_reach_each_other_and_nothing_of_the_daemon(node: &mut Node) {
    let cri = node.ready().await;
    let (server, _) = cri.run_in_pod(&pod("server"), &shell("main", "nc -ll -p 80 -e echo hello")).await.unwrap();
    let ip = cri.pod(&server).await.unwrap().network.unwrap().ip;
    let (_, client) = cri.run_in_pod(&pod("client"), &shell("main", "sleep 1000")).await.unwrap();
    let script = format!("until nc -w 10 {ip} 80 2>/dev/null; do sleep 0.1; done");
    assert_eq!(cri.sh(&client, &script).await, "hello");
    assert_eq!(cri.sh(&client, "ls /proc/1/fd").await, "0\n1\n2");
    assert_eq!(cri.sh(&client, "exec ls /proc/self/fd").await, "0\n1\n2\n3", "3 is the folder itself");
    let mounts = cri.sh(&client, "cat /proc/self/mountinfo").await;
    let root = node.root().to_string_lossy().into_owned();
    let shown: Vec<&str> =
        mounts.lines().filter(|line| !line.contains(" / / ")).filter(|line| line.contains(&root)).collect();
    assert!(shown.is_empty(), "{shown:?}");
    let program = cri.sh(&client, "readlink /proc/1/exe; tr '\\0' ' ' </proc/1/cmdline").await;
    assert!(!program.contains("tripod"), "{program}");
}

/// 12.
async fn sysctls_are_those_of_the_pod_alone(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = pod("sysctls");
    let sysctls = [("net.ipv4.ip_unprivileged_port_start", "7"), ("kernel.shm_rmid_forced", "1")];
    config.linux.as_mut().unwrap().sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let (_, container) = cri.run_in_pod(&config, &shell("main", "sleep 1000")).await.unwrap();
    let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    assert_eq!(cri.sh(&container, read).await, "7\n1");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap().trim(), "1024");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shm_rmid_forced").unwrap().trim(), "0");
    // One that would change the host is refused, and so is one of a namespace that the pod shares.
    for (mut config, name) in [(pod("bad"), "kernel.panic"), (host_pod("bad"), "net.ipv4.ip_forward")] {
        config.linux.as_mut().unwrap().sysctls = HashMap::from([(name.to_owned(), "1".to_owned())]);
        let error = cri.run_pod(&config).await.unwrap_err();
        assert!(error.message().contains(name), "{error}");
    }
}

/// 12.
async fn names_and_resolvers_are_as_asked(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = pod("names");
    config.hostname = "web-1".into();
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["tests.svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    });
    let (id, container) = cri.run_in_pod(&config, &shell("main", "sleep 1000")).await.unwrap();
    assert_eq!(cri.sh(&container, "hostname").await, "web-1");
    let resolv = cri.sh(&container, "cat /etc/resolv.conf").await;
    assert_eq!(resolv, "search tests.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5");
    let hosts = cri.sh(&container, "cat /etc/hosts").await;
    let ip = cri.pod(&id).await.unwrap().network.unwrap().ip;
    assert!(hosts.contains("localhost"), "{hosts}; the pod has {ip}");
    // The kubelet mounts its own file there, and it wins.
    let own = node.folder().join("hosts");
    fs::write(&own, "1.2.3.4 mine\n").unwrap();
    let mut second = shell("second", "cat /etc/hosts");
    second.mounts = vec![tripod_tests::mount(own.to_str().unwrap(), "/etc/hosts")];
    assert_eq!(cri.outcome(&id, &config, &second).await.unwrap().1, "1.2.3.4 mine\n");
}

/// 12.
async fn shared_memory_is_that_of_the_pod(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("shm");
    let (id, first) = cri.run_in_pod(&config, &shell("first", "sleep 1000")).await.unwrap();
    let second = cri.run(&id, &config, &shell("second", "sleep 1000")).await.unwrap();
    cri.sh(&first, "echo shared >/dev/shm/file").await;
    assert_eq!(
        cri.sh(&second, "cat /dev/shm/file; df -k /dev/shm | tail -1 | awk '{print $2}'").await,
        "shared\n65536"
    );
    assert!(!Path::new("/dev/shm/file").exists());
}

fn with_pid(mut config: PodSandboxConfig, mode: NamespaceMode) -> PodSandboxConfig {
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().pid = mode.into();
    config
}

/// 13.
async fn a_shared_pid_namespace_reaps_orphans(node: &mut Node) {
    let cri = node.ready().await;
    let config = with_pid(pod("pids"), NamespaceMode::Pod);
    let (id, first) = cri.run_in_pod(&config, &shell("first", "sleep 1000")).await.unwrap();
    let second = cri.run(&id, &config, &shell("second", "sleep 1001")).await.unwrap();
    eventually("both are seen", Duration::from_secs(20), async || {
        let processes = cri.sh(&second, "ps -o args").await;
        (processes.contains("sleep 1000") && processes.contains("sleep 1001")).then_some(())
    })
    .await;
    cri.sh(&first, "(sleep 0.1 & exec true) & wait").await;
    eventually("orphans are reaped", Duration::from_secs(20), async || {
        let processes = cri.sh(&first, "ps -o stat,args").await;
        (!processes.lines().any(|line| line.starts_with('Z')) && !processes.contains("sleep 0.1")).then_some(())
    })
    .await;
    // The end of one container is not that of the pod.
    cri.stop(&first, 0).await.unwrap();
    assert!(cri.sh(&second, "ps -o args").await.contains("sleep 1001"));
}

/// 13.
async fn a_debug_container_enters_the_target(node: &mut Node) {
    let cri = node.ready().await;
    let config = pod("target");
    let (id, target) = cri.run_in_pod(&config, &shell("main", "exec sleep 1234")).await.unwrap();
    let mut debug = shell(
        "debug",
        "until head -c 5 /proc/1/cmdline | grep -q sleep; do sleep 0.01; done; cat /proc/1/cmdline | tr '\\0' ' '",
    );
    security_of(&mut debug).namespace_options =
        Some(NamespaceOption { pid: NamespaceMode::Target.into(), target_id: target, ..Default::default() });
    let (_, text) = cri.outcome(&id, &config, &debug).await.unwrap();
    assert!(text.starts_with("sleep 1234"), "{text}");
}

/// 14.
async fn no_cgroup_is_left_below_the_parent(node: &mut Node) {
    let cri = node.ready().await;
    cgroup::make("kubepods").unwrap();
    cgroup::make("kubepods/pod1").unwrap();
    let parents: Vec<PathBuf> = cgroup::hierarchies().iter().map(|one| one.point.join("kubepods/pod1")).collect();
    let mut config = pod("parent");
    config.linux.as_mut().unwrap().cgroup_parent = "/kubepods/pod1".into();
    let (id, container) = cri.run_in_pod(&config, &shell("main", "sleep 1000")).await.unwrap();
    let own = cri.sh(&container, "cat /proc/1/cgroup").await;
    let inside = parents.iter().any(|parent| fs::read_dir(parent).unwrap().flatten().any(|e| e.path().is_dir()));
    assert!(inside, "{own}");
    cri.remove_pod(&id).await.unwrap();
    for parent in &parents {
        fs::remove_dir(parent).unwrap();
        fs::remove_dir(parent.parent().unwrap()).unwrap();
    }
}

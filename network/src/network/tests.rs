//! The whole isolator on a real kernel: each test is a host of its own, a network and mount namespace with an
//! "outside" behind it, so that nothing of the machine is touched and tests run side by side. They need root.

mod bridge;
mod cni;
mod hostport;
mod recovery;
mod space;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use space::{Space, eventually};
use tripod_engine::{PodConfig, PortMapping, Protocol};

use super::*;
use crate::{
    firewall::Firewall,
    netlink::{self, Socket},
    route::{self, VethEnd},
};

const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A host for one test.
struct Host {
    dir: tempfile::TempDir,
    outside: Space,
    config: NetworkConfig,
}

/// A pod of a test.
struct Pod {
    id: PodId,
    config: PodConfig,
    setup: PodSetup,
}

impl Pod {
    fn space(&self) -> Space {
        Space::open(self.setup.plan.netns.as_deref().expect("a namespace"))
    }

    fn ip(&self, family: usize) -> IpAddr {
        self.setup.ips[family]
    }
}

impl Drop for Host {
    /// Namespaces of pods that a test leaves running are mounted in the folder, which could not be removed.
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.config.netns_dir).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Runs a test on a host of its own.
fn on_host<F: Future<Output = ()>>(test: impl FnOnce(Host) -> F + Send + 'static) {
    assert!(rustix::process::geteuid().is_root(), "this test makes network namespaces and must be run as root");
    let run = || {
        space::leave();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { test(Host::new()).await });
    };
    std::thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let outside = Space::new();
        // The uplink of a real host has been up for long; the bridge must not profit from this.
        space::duplicate_detection(false);
        outside.run(|| space::duplicate_detection(false));
        // Ends of a pair that have the same number, each in its namespace, take a second to notice that they are up.
        let other = route::new_bridge("other", [0x0a, 1, 1, 1, 1, 1], 1500);
        outside.run(|| Socket::route().expect("a socket").execute(vec![other]).expect("another interface"));
        let mut socket = Socket::route().expect("a socket");
        let ends = ["up0", "eth0"].map(|name| VethEnd { name, mac: [0x0a, 1, 2, 3, 4, name.as_bytes()[0]] });
        let pair = route::new_veth(ends[0], ends[1], outside.fd(), 0, 1400);
        socket.execute(vec![route::up(route::LOOPBACK), pair]).expect("an uplink");
        configure(&mut socket, "up0", &HOST, &OUTSIDE);
        outside.run(|| configure(&mut Socket::route().expect("a socket"), "eth0", &OUTSIDE, &[]));
        // What makes the kernel notice at once that both ends are up; see `Bridge::attach`.
        outside.run(|| Socket::route().expect("a socket").link("eth0").expect("an answer"));
        socket.link("up0").expect("an answer");
        space::duplicate_detection(true);
        let config = NetworkConfig {
            instance: "test".to_owned(),
            subnets: ["10.99.0.0/24", "fd99::/64"].map(|range| range.parse().expect("a range")).into(),
            netns_dir: dir.path().join("netns"),
            cni_conf_dir: dir.path().join("net.d"),
            cni_bin_dirs: vec![dir.path().join("bin")],
            ..NetworkConfig::default()
        };
        Self { dir, outside, config }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn network(&self) -> Arc<Network> {
        Network::new(self.config.clone(), &self.root()).expect("a network")
    }

    /// Everything that pods leave on a host: interfaces, namespaces, records, entries of the firewall's maps.
    fn traces(&self) -> Vec<String> {
        let mut socket = Socket::route().expect("a socket");
        let links = socket.links(None).expect("interfaces").into_iter().map(|link| link.name);
        let links = links.filter(|name| !["lo", "up0", "test0", "cni-test"].contains(&name.as_str()));
        let names = |dir: PathBuf| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let files = names(self.config.netns_dir.clone());
        let records = names(self.root().join("network")).into_iter().filter(|name| name != "cursors");
        let ports = ["any4", "one4", "any6", "one6"].map(|map| (map, elements(map))).into_iter();
        let ports = ports.filter(|(_, count)| *count > 0).map(|(map, count)| format!("{count} in {map}"));
        links.chain(files).chain(records).chain(ports).collect()
    }
}

impl Host {
    /// Nothing is left of any pod. The kernel removes namespaces and interfaces a moment after they were let go.
    async fn is_clean(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let traces = self.traces();
            if traces.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {traces:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Addresses, and default routes by the neighbours.
fn configure(socket: &mut Socket, link: &str, addresses: &[&str], gateways: &[&str]) {
    let index = socket.link(link).expect("an answer").expect("an interface").index;
    let mut messages = vec![route::up(route::LOOPBACK), route::up(index)];
    for (address, bits) in addresses.iter().zip([24, 64]) {
        messages.push(route::address(index, format!("{address}/{bits}").parse().expect("an address")));
    }
    messages.extend(gateways.iter().map(|ip| route::default_route(index, ip.parse().expect("an address"))));
    socket.execute(messages).expect("addresses and routes");
}

/// How many entries a map of the firewall has.
fn elements(map: &str) -> usize {
    let question = netlink::Message::new("listing a map", 10 << 8 | 13, netlink::DUMP, &[1, 0, 0, 0]).with(|list| {
        list.text(1, "test").text(2, map);
    });
    let answers = Socket::netfilter().expect("a socket").ask(question).unwrap_or_default();
    let lists = answers.iter().filter_map(|answer| netlink::attribute(answer.get(4..)?, 3));
    lists.map(|list| netlink::attributes(list).count()).sum()
}

fn pod_config(ports: Vec<PortMapping>) -> PodConfig {
    PodConfig { name: "web".into(), namespace: "default".into(), uid: "u".into(), ports, ..PodConfig::default() }
}

async fn try_start(network: &Network, config: PodConfig) -> Result<Pod> {
    let (id, mut setup) = (PodId::random(), PodSetup::default());
    let context = PodContext { id: &id, config: &config, dir: Path::new("/nonexistent") };
    network.prepare_pod(context, &mut setup).await?;
    Ok(Pod { id, config, setup })
}

async fn start(network: &Network, ports: Vec<PortMapping>) -> Pod {
    try_start(network, pod_config(ports)).await.expect("a pod")
}

fn port(protocol: Protocol, host_port: u16, container_port: u16, host_ip: Option<&str>) -> PortMapping {
    PortMapping { protocol, container_port, host_port, host_ip: host_ip.map(|ip| ip.parse().expect("an address")) }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn known(pods: &[&Pod], live: bool) -> Known {
    let ids: std::collections::BTreeSet<PodId> = pods.iter().map(|pod| pod.id.clone()).collect();
    Known { live_pods: if live { ids.clone() } else { Default::default() }, pods: ids, ..Known::default() }
}

use super::{
    space::{Server, tcp},
    *,
};

#[test]
fn pods_reach_each_other_the_host_and_the_outside() {
    on_host(|host| async move {
        let network = host.network();
        let (one, two) = (start(&network, vec![]).await, start(&network, vec![]).await);
        assert_eq!(one.setup.ips.len(), 2);
        assert_eq!((one.ip(0).to_string(), one.ip(1).to_string()), ("10.99.0.2".into(), "fd99::2".into()));
        assert_eq!((two.ip(0).to_string(), two.ip(1).to_string()), ("10.99.0.3".into(), "fd99::3".into()));
        let servers = (two.space().serve(80), Server::start(81), host.outside.serve(82));
        let one_space = one.space();
        let mut last = Instant::now();
        let mut steps = Vec::new();
        let mut step = || {
            steps.push(last.elapsed());
            last = Instant::now();
        };
        for family in [0, 1] {
            let seen = one_space.run(|| tcp(SocketAddr::new(two.ip(family), 80)));
            assert_eq!(seen, Ok(one.ip(family)), "pod to pod");
            step();
            let gateway = ["10.99.0.1", "fd99::1"][family];
            assert_eq!(one_space.run(|| tcp(address(gateway, 81))), Ok(one.ip(family)), "pod to gateway");
            step();
            assert_eq!(tcp(SocketAddr::new(two.ip(family), 80)), Ok(gateway.parse().expect("an address")));
            step();
            let seen = one_space.run(|| tcp(address(OUTSIDE[family], 82)));
            assert_eq!(seen, Ok(HOST[family].parse().expect("an address")), "pod to outside, as the host");
            step();
            assert_eq!(one_space.run(|| tcp(address(HOST[family], 81))), Ok(one.ip(family)), "pod to host");
            step();
        }
        // The search for duplicates of an address would take a second.
        assert!(steps.iter().all(|step| *step < Duration::from_millis(900)), "addresses are usable at once: {steps:?}");
        let own = one_space.run(|| {
            let _server = Server::start(80);
            (tcp(address("127.0.0.1", 80)), tcp(address("::1", 80)))
        });
        let mtu =
            one_space.run(|| Socket::route().expect("a socket").link("eth0").expect("an answer").expect("eth0").mtu);
        assert_eq!(mtu, 1400, "that of the uplink");
        assert!(own.0.is_ok() && own.1.is_ok(), "loopback is up: {own:?}");

        let mut usage = PodUsage::default();
        network.pod_usage(PodContext { id: &one.id, config: &one.config, dir: Path::new("/") }, &mut usage);
        let [eth0] = usage.interfaces.as_slice() else { panic!("one interface: {usage:?}") };
        assert_eq!(eth0.name, "eth0");
        assert!(eth0.rx_bytes > 500 && eth0.tx_bytes > 500 && eth0.rx_packets > 5 && eth0.tx_packets > 5, "{eth0:?}");

        let status = network.status().await;
        drop((servers, one_space));
        assert_eq!(status.not_ready, None);
        assert!(status.details.contains(&("networkAddresses".to_owned(), "4".to_owned())), "{status:?}");
        network.cleanup_pod(&one.id).await.expect("cleaned up");
        network.cleanup_pod(&one.id).await.expect("cleaned up twice");
        network.cleanup_pod(&two.id).await.expect("cleaned up");
        host.is_clean().await;
        network.uninstall().await.expect("uninstalled");
        assert_eq!(Socket::route().expect("a socket").link("test0").expect("an answer").map(|link| link.name), None);
    });
}

#[test]
fn a_pod_on_the_hosts_network_gets_nothing() {
    on_host(|host| async move {
        let network = host.network();
        let mut config = pod_config(vec![port(Protocol::Tcp, 80, 80, None)]);
        config.namespaces.host_network = true;
        let pod = try_start(&network, config).await.expect("a pod");
        assert_eq!(pod.setup.plan.netns, None);
        assert!(pod.setup.ips.is_empty());
        network.cleanup_pod(&pod.id).await.expect("cleaned up");
        host.is_clean().await;
    });
}

#[test]
fn addresses_run_out_and_come_back() {
    on_host(|mut host| async move {
        host.config.subnets = vec!["10.99.0.0/29".parse().expect("a range")];
        let network = host.network();
        let mut pods = Vec::new();
        for _ in 0..5 {
            pods.push(start(&network, vec![]).await);
        }
        let error = try_start(&network, pod_config(vec![])).await.map(|pod| pod.id).expect_err("no address is left");
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.to_string().contains("10.99.0.0/29"), "{error}");
        let gone = pods.remove(2);
        network.cleanup_pod(&gone.id).await.expect("cleaned up");
        assert_eq!(start(&network, vec![]).await.setup.ips, gone.setup.ips);
    });
}

#[test]
fn a_range_that_is_in_use_is_refused_by_name() {
    on_host(|mut host| async move {
        host.config.subnets = vec!["192.0.0.0/16".parse().expect("a range")];
        let error = try_start(&host.network(), pod_config(vec![])).await.map(|pod| pod.id).expect_err("a clash");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains("192.0.2.0/24"), "{error}");
        host.is_clean().await;
    });
}

#[test]
fn kubelets_range_is_used_and_survives_a_restart() {
    on_host(|mut host| async move {
        host.config.subnets = vec![];
        let network = host.network();
        network.set_pod_cidr("nonsense").await.expect_err("no range");
        network.set_pod_cidr("").await.expect("nothing to set");
        network.set_pod_cidr("10.98.7.0/24,fd98::/64").await.expect("set");
        let pod = start(&network, vec![]).await;
        assert_eq!(pod.ip(0).to_string(), "10.98.7.2");
        drop(network);
        let network = host.network();
        let other = start(&network, vec![]).await;
        assert_eq!(other.ip(0).to_string(), "10.98.7.3");
        network.set_pod_cidr("10.98.8.0/24").await.expect("changed");
        let third = start(&network, vec![]).await;
        assert_eq!(third.setup.ips, ["10.98.8.2".parse::<IpAddr>().expect("an address")]);
        let server = pod.space().serve(80);
        let seen = third.space().run(|| tcp(SocketAddr::new(pod.ip(0), 80)));
        assert_eq!(seen, Ok(third.ip(0)), "pods of both ranges reach each other as themselves");
        let addresses = || {
            let mut socket = Socket::route().expect("a socket");
            let index = socket.link("test0").expect("an answer").expect("the bridge").index;
            let mut all: Vec<String> =
                socket.addresses(index).expect("addresses").iter().map(ToString::to_string).collect();
            all.sort();
            all
        };
        assert_eq!(addresses(), ["10.98.7.1/24", "10.98.8.1/24", "fd98::1/64"]);
        drop(server);
        for pod in [&pod, &other, &third] {
            network.cleanup_pod(&pod.id).await.expect("cleaned up");
        }
        drop(network);
        let network = host.network();
        start(&network, vec![]).await;
        assert_eq!(addresses(), ["10.98.8.1/24"], "gateways without pods go");
    });
}

#[test]
fn a_kernel_without_ipv6_gets_ipv4_alone() {
    on_host(|mut host| async move {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a sysctl");
        let pod = start(&host.network(), vec![]).await;
        assert_eq!(pod.setup.ips, ["10.99.0.2".parse::<IpAddr>().expect("an address")]);
        let _outside = host.outside.serve(82);
        pod.space().run(|| tcp(address(OUTSIDE[0], 82))).expect("connected");
        host.config.subnets = vec!["fd99::/64".parse().expect("a range")];
        let error = try_start(&host.network(), pod_config(vec![])).await.map(|pod| pod.id).expect_err("no IPv6");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
    });
}

#[test]
fn many_pods_start_at_once() {
    on_host(|host| async move {
        let network = host.network();
        let runs = (0..24).map(|_| {
            let network = network.clone();
            async move { start(&network, vec![]).await }
        });
        let pods = futures_all(runs).await;
        let ips: std::collections::BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.setup.ips.clone()).collect();
        assert_eq!(ips.len(), 48);
        let network = &network;
        futures_all(pods.iter().map(|pod| async move { network.cleanup_pod(&pod.id).await.expect("cleaned up") }))
            .await;
        host.is_clean().await;
    });
}

/// Polls all futures together on this thread.
async fn futures_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, output) in &mut waiting {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

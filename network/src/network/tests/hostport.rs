use super::{
    space::{Server, tcp, udp},
    *,
};

#[test]
fn host_ports_lead_to_pods_from_everywhere() {
    on_host(|host| async move {
        let network = host.network();
        let ports = vec![
            port(Protocol::Tcp, 8080, 80, None),
            port(Protocol::Udp, 8080, 80, None),
            port(Protocol::Tcp, 8081, 80, Some("192.0.2.1")),
            port(Protocol::Tcp, 8082, 80, Some("127.0.0.1")),
            port(Protocol::Sctp, 8083, 80, None),
        ];
        let (pod, other) = (start(&network, ports).await, start(&network, vec![]).await);
        let server = pod.space().serve(80);
        for family in [0, 1] {
            let (target, caller) = (address(HOST[family], 8080), OUTSIDE[family].parse().expect("an address"));
            assert_eq!(host.outside.run(|| tcp(target)), Ok(caller), "from outside, with the caller's own address");
            assert_eq!(host.outside.run(|| udp(0, target)), Ok(caller), "UDP from outside");
            tcp(target).expect("from the host by its own address");
            other.space().run(|| tcp(target)).expect("from another pod");
            other.space().run(|| udp(0, target)).expect("UDP from another pod");
            pod.space().run(|| tcp(target)).expect("from the pod itself");
        }
        tcp(address("127.0.0.1", 8080)).expect("from the host by localhost");
        udp(0, address("127.0.0.1", 8080)).expect("UDP by localhost");
        host.outside.run(|| tcp(address(HOST[0], 8081))).expect("by the address asked for");
        tcp(address("127.0.0.1", 8081)).expect_err("not by another address");
        host.outside.run(|| tcp(address(HOST[0], 8082))).expect_err("a port of localhost is not for others");
        tcp(address("127.0.0.1", 8082)).expect("a port of localhost");
        // What goes elsewhere by the same port is left alone.
        let _outside = host.outside.serve(8080);
        let seen = other.space().run(|| tcp(address(OUTSIDE[0], 8080)));
        assert_eq!(seen, Ok(HOST[0].parse().expect("an address")));

        drop(server);
        network.cleanup_pod(&pod.id).await.expect("cleaned up");
        host.outside.run(|| tcp(address(HOST[0], 8080))).expect_err("closed");
        network.cleanup_pod(&other.id).await.expect("cleaned up");
        host.is_clean().await;
    });
}

#[test]
fn the_hosts_loopback_stays_closed_to_others() {
    on_host(|host| async move {
        let network = host.network();
        let pod = start(&network, vec![]).await;
        let _secret = Server::start(99);
        let seen = pod.space().run(|| {
            // The pod sends packets for 127.0.0.1 out by eth0, as an attacker with CAP_NET_ADMIN could.
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").expect("a sysctl");
            let mut socket = Socket::route().expect("a socket");
            socket
                .execute(vec![route::delete_address(1, "127.0.0.1/8".parse().expect("an address"))])
                .expect("removed");
            tcp(address("127.0.0.1", 99))
        });
        assert!(seen.is_err(), "reached: {seen:?}");
        // Without the guard it would have been: the test tests something.
        Firewall::new("test").remove().expect("removed");
        pod.space().run(|| tcp(address("127.0.0.1", 99))).expect("unguarded");
    });
}

#[test]
fn a_port_in_use_is_refused_and_free_again_afterwards() {
    on_host(|host| async move {
        let network = host.network();
        let wanted = || vec![port(Protocol::Tcp, 8080, 80, None)];
        let first = start(&network, wanted()).await;
        let error = try_start(&network, pod_config(wanted())).await.map(|pod| pod.id).expect_err("taken");
        assert_eq!(error.kind(), Kind::AlreadyExists);
        assert!(error.to_string().contains(first.id.as_str()), "{error}");
        start(&network, vec![port(Protocol::Udp, 8080, 80, None)]).await;
        network.cleanup_pod(&first.id).await.expect("cleaned up");
        start(&network, wanted()).await;
        let twice = vec![port(Protocol::Tcp, 1, 80, None), port(Protocol::Tcp, 1, 81, None)];
        let error = try_start(&network, pod_config(twice)).await.map(|pod| pod.id).expect_err("asked for twice");
        assert_eq!(error.kind(), Kind::InvalidArgument);
    });
}

#[test]
fn udp_senders_that_go_on_find_the_pod_of_the_moment() {
    on_host(|host| async move {
        let network = host.network();
        let wanted = || vec![port(Protocol::Udp, 5353, 53, None)];
        let ask = || host.outside.run(|| udp(40_000, address(HOST[0], 5353)));
        let first = start(&network, wanted()).await;
        network.cleanup_pod(&first.id).await.expect("cleaned up");
        // Packets that find nobody are tracked too, and would keep going to nobody.
        ask().expect_err("nobody serves");
        for _ in 0..2 {
            let pod = start(&network, wanted()).await;
            let _server = pod.space().serve(53);
            ask().expect("the new pod");
            network.cleanup_pod(&pod.id).await.expect("cleaned up");
            ask().expect_err("nobody serves any more");
        }
    });
}

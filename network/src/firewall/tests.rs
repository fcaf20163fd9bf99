use super::*;

fn port(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> PortMapping {
    let host_ip = host_ip.map(|ip| ip.parse().expect("an address"));
    PortMapping { protocol, container_port: 80, host_port, host_ip }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn a_port_opens_for_every_family_that_both_sides_have() {
    let both = ips(&["10.1.0.2", "fd00::2"]);
    let count = |host_ip| Forward::all(&[port(Protocol::Tcp, 8080, host_ip)], &both).len();
    assert_eq!(count(None), 2);
    assert_eq!(count(Some("0.0.0.0")), 1);
    assert_eq!(count(Some("::")), 1);
    assert_eq!(count(Some("192.0.2.1")), 1);
    assert_eq!(Forward::all(&[port(Protocol::Tcp, 0, None)], &both).len(), 0, "no host port, no entry");
    assert_eq!(Forward::all(&[port(Protocol::Tcp, 80, Some("::"))], &ips(&["10.1.0.2"])).len(), 0);
}

#[test]
fn keys_and_values_are_padded_to_registers() {
    let forwards = Forward::all(&[port(Protocol::Udp, 0x1234, Some("192.0.2.1"))], &ips(&["10.1.0.2"]));
    let forward = forwards.first().expect("a forward");
    assert_eq!(forward.map(), "one4");
    assert_eq!(forward.key(), [192, 0, 2, 1, 17, 0, 0, 0, 0x12, 0x34, 0, 0]);
    assert_eq!(forward.value(), [10, 1, 0, 2, 0, 80, 0, 0]);
}

#[test]
fn ports_collide_where_a_packet_could_mean_both() {
    let collides = |one: Option<&str>, other: Option<&str>| {
        collide(&port(Protocol::Tcp, 80, one), &port(Protocol::Tcp, 80, other))
    };
    assert!(collides(None, None));
    assert!(collides(None, Some("192.0.2.1")));
    assert!(collides(Some("0.0.0.0"), Some("192.0.2.1")));
    assert!(!collides(Some("192.0.2.2"), Some("192.0.2.1")));
    assert!(!collides(Some("::"), Some("192.0.2.1")));
    assert!(!collide(&port(Protocol::Tcp, 80, None), &port(Protocol::Udp, 80, None)));

    let pod = PodId::parse(&"a".repeat(64)).expect("an ID");
    let taken = [port(Protocol::Tcp, 80, None)];
    let error = conflict(&taken, [(&pod, taken.as_slice())].into_iter()).expect_err("taken");
    assert_eq!(error.kind(), Kind::AlreadyExists);
    assert!(error.to_string().contains("80/tcp"), "{error}");
    conflict(&[port(Protocol::Tcp, 0, None)], [(&pod, taken.as_slice())].into_iter()).expect("no host port");
    check(&[port(Protocol::Tcp, 80, None), port(Protocol::Tcp, 80, Some("192.0.2.1"))]).expect_err("asked for twice");
}

use super::*;
use crate::{Kind, VolumeMount, isolator::fixture::Fixture};

fn dns() -> DnsConfig {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    DnsConfig {
        servers: words("10.96.0.10 fd00::a"),
        searches: words("ns.svc.cluster.local cluster.local"),
        options: words("ndots:5 edns0"),
    }
}

fn file(fixture: &Fixture, name: &str) -> String {
    fs::read_to_string(fixture.dir().join(name)).unwrap()
}

#[tokio::test]
async fn a_pod_gets_its_files() {
    let mut fixture = Fixture::new();
    fixture.pod.hostname = "web-0".to_owned();
    fixture.pod.dns = Some(dns());
    let ips = vec!["10.88.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    let mut setup = PodSetup { ips, ..PodSetup::default() };
    fixture.prepare_pod_into(&Files, &mut setup).await.unwrap();
    assert_eq!(
        file(&fixture, "resolv.conf"),
        "search ns.svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5 edns0\n"
    );
    assert_eq!(file(&fixture, "hostname"), "web-0\n");
    let hosts = file(&fixture, "hosts");
    assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"));
    assert!(hosts.ends_with("10.88.0.7\tweb-0\nfd00::7\tweb-0\n"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(fixture.dir().join("hosts")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644);
}

#[tokio::test]
async fn without_dns_the_hosts_is_copied() {
    let mut fixture = Fixture::new();
    for dns in [None, Some(DnsConfig::default())] {
        fixture.pod.dns = dns;
        fixture.pod.namespaces.host_network = true;
        fixture.prepare_pod(&Files).await.unwrap();
        assert_eq!(file(&fixture, "resolv.conf"), read(HOST_RESOLV_CONF).unwrap());
        assert_eq!(file(&fixture, "hosts"), read("/etc/hosts").unwrap());
        assert_eq!(file(&fixture, "hostname").trim(), namespaces::host_hostname());
    }
}

#[test]
fn only_the_stub_is_replaced() {
    assert!(only_stub("# x\nnameserver 127.0.0.53\noptions edns0\n"));
    assert!(!only_stub("nameserver 127.0.0.53\nnameserver 9.9.9.9\n"));
    assert!(!only_stub("nameserver 9.9.9.9\n"));
    assert!(!only_stub(""));
}

#[tokio::test]
async fn no_line_can_be_smuggled_in() {
    for bad in ["a\nnameserver 6.6.6.6", "", "a b", "a\0"] {
        let mut fixture = Fixture::new();
        fixture.pod.dns = Some(DnsConfig { searches: vec![bad.to_owned()], ..DnsConfig::default() });
        assert_eq!(fixture.prepare_pod(&Files).await.unwrap_err().kind(), Kind::InvalidArgument);
    }
}

#[tokio::test]
async fn containers_mount_them_but_where_the_request_has_its_own() {
    let mut fixture = Fixture::new();
    let plan = fixture.prepare(&Files).await.unwrap();
    let targets: Vec<_> = plan.mounts.iter().map(|mount| mount.target.as_path()).collect();
    assert_eq!(targets, [Path::new("/etc/hostname"), Path::new("/etc/hosts"), Path::new("/etc/resolv.conf")]);
    assert!(plan.mounts.iter().all(|mount| !mount.flags.read_only));

    fixture.config.security.read_only_rootfs = true;
    fixture.config.mounts = vec![VolumeMount { container_path: "/etc//hosts".into(), ..VolumeMount::default() }];
    let plan = fixture.prepare(&Files).await.unwrap();
    assert_eq!(plan.mounts.len(), 2);
    assert!(plan.mounts.iter().all(|mount| mount.flags.read_only && mount.target != Path::new("/etc/hosts")));
    let path = fixture.dir().join("hostname");
    assert_eq!(plan.mounts[0].source, MountSource::Bind { path, recursive: false });
}

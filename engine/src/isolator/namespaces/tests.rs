use super::*;
use crate::isolator::fixture::Fixture;

#[tokio::test]
async fn a_pod_has_its_own_namespaces() {
    let mut fixture = Fixture::new();
    fixture.pod.hostname = "web-0".to_owned();
    let plan = fixture.prepare_pod(&Namespaces).await.unwrap().plan;
    assert!(plan.private_ipc && !plan.shared_pid);
    assert_eq!(plan.hostname.as_deref(), Some("web-0"));
}

#[tokio::test]
async fn a_pod_without_a_name_has_the_hosts_but_its_own_namespace() {
    let plan = Fixture::new().prepare_pod(&Namespaces).await.unwrap().plan;
    assert_eq!(plan.hostname, Some(host_hostname()));
}

#[tokio::test]
async fn host_network_keeps_the_hosts_name() {
    let mut fixture = Fixture::new();
    fixture.pod.hostname = "web-0".to_owned();
    fixture.pod.namespaces.host_network = true;
    fixture.pod.namespaces.host_ipc = true;
    fixture.pod.namespaces.pid = PidMode::Pod;
    let plan = fixture.prepare_pod(&Namespaces).await.unwrap().plan;
    assert_eq!((plan.hostname, plan.private_ipc, plan.shared_pid), (None, false, true));
}

#[tokio::test]
async fn bad_host_names_are_refused() {
    for bad in ["a\nb", "a b", "a#b", &"x".repeat(65)] {
        let mut fixture = Fixture::new();
        fixture.pod.hostname = bad.to_owned();
        assert_eq!(fixture.prepare_pod(&Namespaces).await.unwrap_err().kind(), Kind::InvalidArgument, "{bad:?}");
    }
}

#[test]
fn pid_modes_must_agree() {
    use ContainerPid as C;
    let own = PidNamespace::Container;
    for pod in [PidMode::Container, PidMode::Pod, PidMode::Node] {
        assert_eq!(pid(&C::Container, pod).unwrap(), own);
        assert_eq!(pid(&C::Target("t".to_owned()), pod).unwrap(), PidNamespace::Target("t".to_owned()));
        assert!(pid(&C::Target(String::new()), pod).is_err());
    }
    assert_eq!(pid(&C::Pod, PidMode::Pod).unwrap(), PidNamespace::Pod);
    assert_eq!(pid(&C::Node, PidMode::Node).unwrap(), PidNamespace::Node);
    for (container, pod) in
        [(C::Pod, PidMode::Container), (C::Pod, PidMode::Node), (C::Node, PidMode::Pod), (C::Node, PidMode::Container)]
    {
        assert_eq!(pid(&container, pod).unwrap_err().kind(), Kind::InvalidArgument);
    }
}

#[tokio::test]
async fn only_privileged_containers_see_the_hosts_cgroups() {
    let mut fixture = Fixture::new();
    assert!(fixture.prepare(&Namespaces).await.unwrap().cgroup_namespace);
    fixture.config.security.privileged = true;
    assert!(!fixture.prepare(&Namespaces).await.unwrap().cgroup_namespace);
}

use super::*;

fn mapping(container_id: u32, host_id: u32, length: u32) -> IdMapping {
    IdMapping { host_id, container_id, length }
}

fn options(mode: i32, uids: &[IdMapping], gids: &[IdMapping]) -> NamespaceOption {
    let userns = UserNamespace { mode, uids: uids.to_vec(), gids: gids.to_vec() };
    NamespaceOption { userns_options: Some(userns), ..NamespaceOption::default() }
}

fn pod(uids: &[IdMapping]) -> Refused<Option<UserMapping>> {
    of_pod("options", &options(NamespaceMode::Pod.into(), uids, &[mapping(0, 7000, 10)]), None)
}

fn refused<T: std::fmt::Debug>(result: Refused<T>, words: &[&str]) {
    let text = result.unwrap_err().to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

const IDS: UserMapping =
    UserMapping { uids: IdRange { host: 1000, length: 100 }, gids: IdRange { host: 7000, length: 10 } };

#[test]
fn a_pod_gets_one_range_of_each_kind_or_none() {
    assert_eq!(pod(&[mapping(0, 1000, 100)]).unwrap(), Some(IDS));
    assert_eq!(of_pod("options", &NamespaceOption::default(), None).unwrap(), None);
    assert_eq!(of_pod("options", &options(NamespaceMode::Node.into(), &[], &[]), None).unwrap(), None);
    assert_eq!(to_wire(Some(IDS)).uids, [mapping(0, 1000, 100)]);
    assert_eq!((to_wire(None).mode, to_wire(None).gids.len()), (NamespaceMode::Node as i32, 0));
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    refused(pod(&[]), &["userns_options.uids", "exactly one"]);
    refused(pod(&[mapping(0, 1000, 100), mapping(0, 1050, 100)]), &["userns_options.uids", "not 2"]);
    refused(pod(&[mapping(1, 1000, 100)]), &["container_id 0"]);
    refused(pod(&[mapping(0, 1000, 0)]), &["length"]);
    refused(pod(&[mapping(0, 0, 100)]), &["host"]);
    refused(pod(&[mapping(0, 1000, u32::MAX)]), &["beyond"]);
    refused(pod(&[mapping(0, u32::MAX, 1)]), &["beyond"]);
    assert!(pod(&[mapping(0, 1, u32::MAX - 1)]).is_ok());
    let no_groups = options(NamespaceMode::Pod.into(), &[mapping(0, 1000, 100)], &[]);
    refused(of_pod("options", &no_groups, None), &["userns_options.gids"]);
}

#[test]
fn modes_that_cannot_be_are_refused() {
    for mode in [NamespaceMode::Container, NamespaceMode::Target] {
        refused(of_pod("options", &options(mode.into(), &[], &[]), None), &["userns_options.mode", "POD or NODE"]);
    }
    refused(of_pod("options", &options(77, &[], &[]), None), &["userns_options.mode", "77"]);
    let node_users = options(NamespaceMode::Node.into(), &[], &[]);
    let mapped = options(NamespaceMode::Node.into(), &[mapping(0, 1000, 100)], &[]);
    refused(of_pod("options", &mapped, None), &["host's user namespace cannot have mappings"]);
    let good = options(NamespaceMode::Pod.into(), &[mapping(0, 1000, 100)], &[mapping(0, 7000, 10)]);
    let why = "need Linux 5.19 or newer, this is 5.15.0";
    refused(of_pod("options", &good, Some(why)), &["options.userns_options", why, "hostUsers"]);
    assert_eq!(of_pod("options", &node_users, Some(why)).unwrap(), None);
    let node = NamespaceMode::Node.into();
    refused(of_pod("options", &NamespaceOption { pid: node, ..good.clone() }, None), &["options.pid", "hostUsers"]);
    refused(of_pod("options", &NamespaceOption { ipc: node, ..good.clone() }, None), &["options.ipc", "hostUsers"]);
    assert_eq!(of_pod("options", &NamespaceOption { network: node, ..good }, None).unwrap(), Some(IDS));
}

#[test]
fn containers_and_mounts_have_the_mappings_of_their_pod() {
    let namespaces = PodNamespaces { user: Some(IDS), ..PodNamespaces::default() };
    let own = PodConfig { namespaces, ..PodConfig::default() };
    let (uids, gids) = ([mapping(0, 1000, 100)], [mapping(0, 7000, 10)]);
    let same = options(NamespaceMode::Pod.into(), &uids, &gids);
    let node = options(NamespaceMode::Node.into(), &[], &[]);
    of_container("options", &same, &own).unwrap();
    of_container("options", &NamespaceOption::default(), &own).unwrap();
    of_container("options", &node, &PodConfig::default()).unwrap();
    refused(of_container("options", &node, &own), &["options.userns_options", "from 1000 on the host"]);
    refused(of_container("options", &same, &PodConfig::default()), &["the host's user namespace"]);
    let other = options(NamespaceMode::Pod.into(), &[mapping(0, 1000, 99)], &gids);
    refused(of_container("options", &other, &own), &["must be that of the pod sandbox"]);

    assert!(of_mount("mount", &uids, &gids, namespaces).unwrap());
    assert!(!of_mount("mount", &[], &[], namespaces).unwrap());
    refused(of_mount("mount", &uids, &gids, PodNamespaces::default()), &["mount.uidMappings", "pod sandbox"]);
    refused(of_mount("mount", &uids, &uids, namespaces), &["mount.uidMappings"]);
    refused(of_mount("mount", &uids, &[], namespaces), &["mount.gidMappings", "exactly one"]);
}

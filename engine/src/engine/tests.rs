use super::*;
use crate::{ContainerConfig, ContainerState, PodConfig, PodState};

fn pod(name: &str, state: PodState) -> Arc<Pod> {
    let config = Arc::new(PodConfig { name: name.into(), ..PodConfig::default() });
    Arc::new(Pod::new(PodRecord { id: PodId::random(), config, created_at: 1, state, ips: Vec::new() }, None))
}

fn container(pod: &PodId, name: &str) -> Arc<Container> {
    let record = ContainerRecord {
        id: ContainerId::random(),
        pod: pod.clone(),
        config: Arc::new(ContainerConfig { name: name.into(), ..ContainerConfig::default() }),
        created_at: 1,
        state: ContainerState::Created,
        credentials: tripod_shim_protocol::Credentials::default(),
        resources: tripod_shim_protocol::Resources::default(),
        limitation: None,
    };
    Arc::new(Container::new(record, tripod_shim_protocol::LaunchPlan::default(), None))
}

#[test]
fn ids_are_found_by_an_unambiguous_beginning() {
    let index = Index::default();
    let ready = pod("a", PodState::Ready { shim_pid: 1 });
    index.insert_pod(Arc::clone(&ready));
    assert_eq!(index.pod(ready.id.as_str()).unwrap().id, ready.id);
    assert_eq!(index.pod(ready.id.short()).unwrap().id, ready.id);
    assert_eq!(index.pod("no such pod").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(index.pod("").unwrap_err().kind(), Kind::InvalidArgument);
    // Seventeen IDs: two of them begin with the same digit.
    for number in 0..16 {
        index.insert_pod(pod(&number.to_string(), PodState::NotReady));
    }
    let digits = (0..16u32).filter_map(|digit| char::from_digit(digit, 16)).map(|digit| index.pod(&digit.to_string()));
    assert!(digits.filter_map(Result::err).any(|error| error.kind() == Kind::InvalidArgument));
}

#[test]
fn a_container_is_not_added_to_a_pod_that_was_stopped() {
    let index = Index::default();
    let (ready, stopped) = (pod("a", PodState::Ready { shim_pid: 1 }), pod("b", PodState::NotReady));
    index.insert_pod(Arc::clone(&ready));
    index.insert_pod(Arc::clone(&stopped));
    index.insert_container(container(&ready.id, "c"), &ready.id).unwrap();
    let error = index.insert_container(container(&stopped.id, "c"), &stopped.id).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert_eq!(index.containers_of(&ready.id).len(), 1);
    assert!(index.containers_of(&stopped.id).is_empty());
}

#[test]
fn a_name_is_free_again_once_its_holder_is_removed() {
    let index = Index::default();
    let first = pod("a", PodState::NotReady);
    index.insert_pod(Arc::clone(&first));
    assert!(index.pod_named(&first.record().config).is_some());
    index.remove_pod(&first.id);
    assert!(index.pod_named(&first.record().config).is_none());
}

#[test]
fn a_folder_belongs_to_one_daemon() {
    let root = tempfile::tempdir().unwrap();
    let held = lock(root.path()).unwrap();
    let error = lock(root.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("--root"), "{error}");
    drop(held);
    lock(root.path()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_is_ended_and_named() {
    let error = limited(Duration::from_secs(3), "cgroups", std::future::pending::<Result<()>>()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert_eq!(error.to_string(), "cgroups did not end within 3 s");
}

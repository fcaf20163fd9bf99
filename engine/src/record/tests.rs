use proptest::prelude::*;

use super::*;

fn state() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        (1..100, 0..100i64).prop_map(|(pid, started_at)| ContainerState::Running { pid, started_at }),
        (0..100i64).prop_map(|at| ContainerState::Exited(Exit::unseen(at, at + 1, ""))),
    ]
}

proptest! {
    #[test]
    fn a_state_machine_only_goes_forward(steps in prop::collection::vec(state(), 0..20)) {
        let rank = |state: &ContainerState| match state {
            ContainerState::Created => 0,
            ContainerState::Running { .. } => 1,
            ContainerState::Exited(_) => 2,
        };
        let mut now = ContainerState::Created;
        for next in steps {
            prop_assert_eq!(next.may_follow(&now), rank(&next) > rank(&now));
            if next.may_follow(&now) {
                now = next;
            }
        }
    }

    #[test]
    fn an_exit_is_never_before_its_start(started_at in 0..i64::MAX, finished_at in 0..i64::MAX, code in 0..256) {
        let record = ExitRecord { code, started_at, finished_at, log_bytes_lost: 0 };
        prop_assert!(Exit::seen(&record, None).finished_at >= started_at);
        prop_assert!(Exit::unseen(started_at, finished_at, "").finished_at >= started_at);
    }
}

#[test]
fn reasons_are_those_that_kubelet_knows() {
    let record = |code| ExitRecord { code, started_at: 1, finished_at: 2, log_bytes_lost: 0 };
    assert_eq!(Exit::seen(&record(0), None).reason, "Completed");
    assert_eq!(Exit::seen(&record(3), None).reason, "Error");
    let oom = Limitation { reason: Some("OOMKilled".into()), message: "limit".into() };
    assert_eq!(Exit::seen(&record(137), Some(oom)).reason, "OOMKilled");
    let forks = Limitation { reason: None, message: "forks failed".into() };
    let seen = |code| Exit::seen(&record(code), Some(forks.clone()));
    assert_eq!((seen(2).reason.as_str(), seen(2).message.as_str()), ("Error", "forks failed"));
    assert_eq!((seen(0).reason.as_str(), seen(0).message.as_str()), ("Completed", ""));
    assert_eq!(Exit::start_error(5, "no such file".into()).code, 128);
}

#[test]
fn lost_output_is_told() {
    let record = ExitRecord { code: 0, started_at: 1, finished_at: 2, log_bytes_lost: 7 };
    assert_eq!(Exit::seen(&record, None).message, "7 bytes of output could not be written to the log");
}

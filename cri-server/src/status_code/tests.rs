use tonic::Code;
use tripod_engine::{Error, Kind};

use super::{not_built, pull_status, status};

#[test]
fn each_kind_has_the_code_of_its_name() {
    let pairs = [
        (Kind::InvalidArgument, Code::InvalidArgument),
        (Kind::NotFound, Code::NotFound),
        (Kind::AlreadyExists, Code::AlreadyExists),
        (Kind::FailedPrecondition, Code::FailedPrecondition),
        (Kind::ResourceExhausted, Code::ResourceExhausted),
        (Kind::DeadlineExceeded, Code::DeadlineExceeded),
        (Kind::Unavailable, Code::Unavailable),
        (Kind::PermissionDenied, Code::PermissionDenied),
        (Kind::Unimplemented, Code::Unimplemented),
        (Kind::Internal, Code::Internal),
    ];
    for (kind, code) in pairs {
        assert_eq!(status(Error::new(kind, "x")).code(), code);
    }
}

#[test]
fn the_message_tells_every_cause_in_one_line() {
    let error = Error::io("write /etc/hosts of pod 1", std::io::Error::other("disk on fire"));
    assert_eq!(status(error).message(), "write /etc/hosts of pod 1: disk on fire");
}

#[test]
fn a_silent_registry_is_named_as_the_kubelet_knows_it() {
    let error = pull_status(Error::new(Kind::Unavailable, "pull x: connection refused"));
    assert_eq!(error.code(), Code::Unknown);
    assert!(error.message().starts_with("RegistryUnavailable: pull x"), "{}", error.message());
    let error = pull_status(Error::new(Kind::PermissionDenied, "SignatureValidationFailed: pull x: no signature"));
    assert_eq!(error.code(), Code::Unknown);
    assert_eq!(pull_status(Error::new(Kind::NotFound, "no such image")).code(), Code::NotFound);
}

#[test]
fn long_messages_are_cut_between_characters() {
    let error = status(Error::new(Kind::Internal, "ä".repeat(10_000)));
    assert!(error.message().len() < 4200 && error.message().ends_with("ä…"));
}

#[test]
fn what_is_not_built_says_so() {
    assert_eq!(not_built("Exec", "use ExecSync").code(), Code::Unimplemented);
}

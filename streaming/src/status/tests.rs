use serde_json::{Value, json};

use super::Outcome;
use crate::upgrade::Version;

fn status(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.document(Version::V4)).unwrap()
}

#[test]
fn newer_clients_get_a_document() {
    let success = json!({"metadata": {}, "status": "Success"});
    assert_eq!(status(&Outcome::Exited(0)), success);
    assert_eq!(status(&Outcome::Detached), success);
    assert_eq!(
        status(&Outcome::Exited(137)),
        json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": "command terminated with non-zero exit code: 137",
            "details": {"causes": [{"reason": "ExitCode", "message": "137"}]},
        })
    );
    assert_eq!(
        status(&Outcome::Failed("no \"such\" container".into())),
        json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "Internal error occurred: no \"such\" container",
        })
    );
}

#[test]
fn codes_are_bytes() {
    for code in [-1, 256, i32::MAX] {
        assert_eq!(status(&Outcome::Exited(code))["details"]["causes"][0]["message"], "255");
    }
}

#[test]
fn older_clients_get_a_text_or_nothing() {
    for version in [Version::V1, Version::V2, Version::V3] {
        assert!(Outcome::Exited(0).document(version).is_empty());
        assert!(Outcome::Detached.document(version).is_empty());
        assert_eq!(Outcome::Exited(3).document(version), b"command terminated with non-zero exit code: 3");
        assert_eq!(Outcome::Failed("x".into()).document(version), b"Internal error occurred: x");
    }
}

//! From the engine's errors to gRPC: the one place that decides which code a client sees.
//!
//! The kubelet acts on `NOT_FOUND` (the object is gone, no need to repeat), `DEADLINE_EXCEEDED` (a probe timed out) and
//! `UNIMPLEMENTED` (fall back to the older call). For pulls it reads the first word of the message instead, and only
//! where the code is `UNKNOWN`.

use tonic::{Code, Status};
use tripod_engine::{Error, Kind};

/// The longest message that is sent. It travels in an HTTP/2 header, and clients limit what they take of those.
const MAX_MESSAGE: usize = 4096;

/// What a service call returns.
pub(crate) type Reply<T> = Result<tonic::Response<T>, Status>;

/// The code for a kind of error.
pub(crate) fn code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Unavailable => Code::Unavailable,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}

/// An engine's error as a gRPC status.
#[allow(clippy::needless_pass_by_value, reason = "it ends here, and map_err takes it by name")]
pub(crate) fn status(error: Error) -> Status {
    Status::new(code(error.kind()), shortened(error.to_string()))
}

/// The word by which the kubelet knows a registry that does not answer.
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
/// And an image that the policy does not let in; the image service puts it there.
const SIGNATURE_VALIDATION_FAILED: &str = "SignatureValidationFailed";

/// The error of a pull. The kubelet looks for its word at the start of the message, and only of an `UNKNOWN` error.
pub(crate) fn pull_status(error: Error) -> Status {
    let message = error.to_string();
    if message.starts_with(SIGNATURE_VALIDATION_FAILED) {
        return Status::unknown(shortened(message));
    }
    if !matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded) {
        return status(error);
    }
    let message = match message.starts_with(REGISTRY_UNAVAILABLE) {
        true => message,
        false => format!("{REGISTRY_UNAVAILABLE}: {message}"),
    };
    Status::unknown(shortened(message))
}

/// The answer of calls that are part of the contract and not of this build.
pub(crate) fn not_built(call: &str, remedy: &str) -> Status {
    Status::unimplemented(format!("{call} is not built into this version of tripod; {remedy}"))
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;

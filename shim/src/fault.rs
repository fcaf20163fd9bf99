//! Errors on their way to becoming the protocol's `Failure`: each gets the step and the object at the place where
//! both are known.

use std::fmt::Display;

use tripod_shim_protocol::{Failure, FailureKind};

/// Names the step that failed.
pub(crate) trait Blame<T> {
    /// The plan asks for something that cannot be done.
    fn plan(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
    /// The shim or the kernel is at fault.
    fn internal(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Display> Blame<T> for Result<T, E> {
    fn plan(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| failure(FailureKind::Plan, step(), error))
    }

    fn internal(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| failure(FailureKind::Internal, step(), error))
    }
}

/// A failure of `kind`.
pub(crate) fn failure(kind: FailureKind, step: impl Into<String>, message: impl Display) -> Failure {
    Failure { step: step.into(), message: message.to_string(), kind }
}

//! The one error type at the engine's seams.
//!
//! Inside a module errors are small and typed; where they leave it they become an [`Error`]: a kind that a caller can
//! act on, what was being done to which object, and the cause.

use std::fmt;

/// What an operation returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error. The CRI server maps each to the gRPC code that kubelet acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong; repeating it will not help.
    InvalidArgument,
    /// The pod, container or image does not exist.
    NotFound,
    /// The name is taken by something else.
    AlreadyExists,
    /// The object is in the wrong state for this.
    FailedPrecondition,
    /// Disk, memory, addresses or ports have run out.
    ResourceExhausted,
    /// A limit of time was reached.
    DeadlineExceeded,
    /// Something outside is not there for the moment; repeating may help.
    Unavailable,
    /// Access was denied by a registry or policy.
    PermissionDenied,
    /// Not built.
    Unimplemented,
    /// Anything else.
    Internal,
}

/// An error with its kind, its step and its cause.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a deeper cause. The message names the object and what the operator can do.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error with its cause.
    pub fn with(
        kind: Kind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into().into()) }
    }

    /// An input/output error on an object; a full disk becomes [`Kind::ResourceExhausted`], and a broken one is named.
    pub fn io(step: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        let (mut step, source) = (step.into(), source.into());
        if source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
            step.push_str(" (the disk fails: the kernel's log says why)");
        }
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::ResourceExhausted,
            _ => Kind::Internal,
        };
        Self::with(kind, step, source)
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Puts the step in which it happened before the message.
    #[must_use]
    pub fn during(mut self, step: impl fmt::Display) -> Self {
        self.message = format!("{step}: {}", self.message);
        self
    }
}

/// Shows the message and every cause behind it, so that one line tells all.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

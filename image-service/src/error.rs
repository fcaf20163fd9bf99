//! From this crate's errors to the engine's, with the kind that a caller can act on.

use tripod_engine::{Error, Kind};

use crate::{
    catalog::CatalogError, manifest::ManifestError, reference::InvalidReference, registry::RegistryError,
    unpack::UnpackError,
};

impl From<InvalidReference> for Error {
    fn from(error: InvalidReference) -> Self {
        Self::new(Kind::InvalidArgument, error.to_string())
    }
}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        let kind = error.problem.kind();
        Self::with(kind, format!("{} from {}", error.what, error.host), error.problem)
    }
}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Self {
        if let CatalogError::Database { source, .. } = &error
            && let redb::Error::Io(cause) = &**source
        {
            return Self::io(error.to_string(), io_copy(cause));
        }
        let kind = match &error {
            CatalogError::Open { .. } | CatalogError::Newer { .. } => Kind::FailedPrecondition,
            _ => Kind::Internal,
        };
        Self::with(kind, "image database", error)
    }
}

/// What the caller can do about a manifest that is not as it should be.
pub(crate) fn manifest_kind(error: &ManifestError) -> Kind {
    match error {
        ManifestError::Platform { .. } => Kind::NotFound,
        ManifestError::Schema1 | ManifestError::Artifact(_) | ManifestError::OperatingSystem(..) => {
            Kind::FailedPrecondition
        }
        _ => Kind::Internal,
    }
}

/// What the caller can do about a layer that cannot be unpacked.
pub(crate) fn unpack_kind(error: &UnpackError) -> Kind {
    match error {
        UnpackError::Write { source, .. } => Error::io("", io_copy(source)).kind(),
        UnpackError::Limit { .. } | UnpackError::Full { .. } => Kind::ResourceExhausted,
        _ => Kind::Internal,
    }
}

/// A layer that cannot be unpacked; what the disk refuses is told as the disk's.
pub(crate) fn unpack_error(step: String, error: UnpackError) -> Error {
    match error {
        UnpackError::Write { step: inner, path, source } => {
            Error::io(format!("{step}: cannot {inner} {}", path.display()), source)
        }
        error => Error::with(unpack_kind(&error), step, error),
    }
}

/// An error of the system cannot be cloned, but made again.
fn io_copy(error: &std::io::Error) -> std::io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error)
}

//! Why a request cannot be carried out.

use std::fmt;

use tonic::Status;

/// What a check returns.
pub(crate) type Refused<T> = Result<T, Refusal>;

/// A field of a request that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub(crate) struct Refusal {
    object: String,
    field: String,
    problem: String,
}

impl Refusal {
    /// A refusal of a field, by its path in the request.
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { object: String::new(), field: field.into(), problem: problem.into() }
    }

    /// Names the object that the request is about.
    #[must_use]
    pub(crate) fn of(mut self, object: impl fmt::Display) -> Self {
        self.object = object.to_string();
        self
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Status::invalid_argument(refusal.to_string())
    }
}

/// A text that must be there and may not hold a NUL, which the kernel would take for its end.
pub(crate) fn required(field: &str, text: &str) -> Refused<String> {
    if text.is_empty() {
        return Err(Refusal::new(field, "must not be empty"));
    }
    plain(field, text)
}

/// A text without NUL.
pub(crate) fn plain(field: &str, text: &str) -> Refused<String> {
    if text.contains('\0') {
        return Err(Refusal::new(field, "must not contain a NUL character"));
    }
    Ok(text.to_owned())
}

/// An absolute path.
pub(crate) fn absolute(field: &str, path: &str) -> Refused<std::path::PathBuf> {
    let path = std::path::PathBuf::from(required(field, path)?);
    if !path.is_absolute() {
        return Err(Refusal::new(field, format!("{} is not an absolute path", path.display())));
    }
    Ok(path)
}

/// A path below something else: relative, and never out of it.
pub(crate) fn below(field: &str, path: &str) -> Refused<std::path::PathBuf> {
    use std::path::Component;
    let path = std::path::PathBuf::from(plain(field, path)?);
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(Refusal::new(field, format!("{} must be a relative path without \"..\"", path.display())));
    }
    Ok(path)
}

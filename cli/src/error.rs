//! What can go wrong with a command, in words for the person who typed it.

use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// nobody listens
    #[error(
        "no tripod answers at {socket}: {}\nStart one with `tripod serve` (as root), or name its socket with \
         --socket or TRIPOD_SOCKET.",
        root_cause(.source)
    )]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// a call was answered with an error
    #[error("{step}: {}", .status.message())]
    Call {
        /// What was being done.
        step: String,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// no pod, container or image is meant
    #[error("{0}")]
    NotFound(String),
    /// an argument cannot be
    #[error("{0}")]
    Usage(String),
    /// a session with a container could not be had, or did not end well
    #[error("{0}")]
    Stream(String),
    /// reading or writing on this side failed
    #[error("{step}: {source}")]
    Io {
        /// What was being done, and to what.
        step: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// the daemon for the time of a command did not come up
    #[error("no tripod answers at {socket}, and one for the time of this command cannot start: {source}")]
    Embed {
        /// Where one was looked for.
        socket: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CliError {
    /// Makes a call's status an error, with what was being done.
    pub(crate) fn call(step: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        let step = step.into();
        move |status| Self::Call { step, status: Box::new(status) }
    }

    /// Makes an input or output error one of a command.
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }
}

/// What is behind an error: the transport's own says only that there was one.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

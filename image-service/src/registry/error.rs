//! What can go wrong with a registry, and what the caller can do about it.

use reqwest::StatusCode;
use thiserror::Error;
use tripod_engine::Kind;

use super::{auth::InvalidAuth, hosts::HostsError};
use crate::digest::Digest;

/// A request that failed: what was asked for, of whom, and why it was in vain.
#[derive(Debug, Error)]
#[error("{what} from {host}")]
pub(crate) struct RegistryError {
    pub what: String,
    pub host: String,
    #[source]
    pub problem: Problem,
}

/// Why.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    #[error(transparent)]
    Hosts(#[from] HostsError),
    #[error(transparent)]
    Auth(#[from] InvalidAuth),
    #[error("{0}")]
    Tls(String),
    #[error("access denied ({status}{detail}): {remedy}")]
    Denied { status: StatusCode, detail: String, remedy: &'static str },
    #[error("not found{0}: check the name and the tag, and that this registry has them")]
    NotFound(String),
    #[error("the registry answered {status}{detail}")]
    Status { status: StatusCode, detail: String },
    #[error("the registry is busy or broken ({status}{detail}), after {attempts} tries")]
    Busy { status: StatusCode, detail: String, attempts: u32 },
    #[error("the registry cannot be reached, after {attempts} tries: check its name, the network and hosts.toml")]
    Network { attempts: u32, source: NetworkError },
    #[error("no progress: less than {rate} bytes a second for {seconds} seconds, after {attempts} tries")]
    Stalled { rate: u64, seconds: u64, attempts: u32 },
    #[error("the answer is larger than the limit of {0} bytes")]
    TooLarge(u64),
    #[error("the blob has {got} bytes, the manifest says {expected}: it is corrupt at the registry")]
    Length { got: u64, expected: u64 },
    #[error(
        "the content has the digest {got}, not {expected}: it is corrupt at the registry or was changed on its way"
    )]
    Digest { got: Digest, expected: Digest },
    #[error("{0}")]
    Redirect(String),
    #[error("the token server {realm} gave no token: {why}")]
    Token { realm: String, why: String },
    #[error("no host in hosts.toml has the capability {0:?}")]
    NoHost(&'static str),
    #[error("the unpacker stopped reading")]
    Abandoned,
}

/// A network error in one line: the client's own message repeats the URL, which may carry a signature.
#[derive(Debug, Error)]
#[error("{message}")]
pub(crate) struct NetworkError {
    message: String,
    /// No connection was made at all.
    pub connect: bool,
}

impl From<reqwest::Error> for NetworkError {
    fn from(error: reqwest::Error) -> Self {
        let connect = error.is_connect();
        let timeout = error.is_timeout();
        let error = error.without_url();
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        if timeout && !message.contains("timed out") {
            message += ": timed out";
        }
        Self { message, connect }
    }
}

impl NetworkError {
    pub(crate) fn timeout(what: &str) -> Self {
        Self { message: format!("timed out while waiting for {what}"), connect: false }
    }
}

impl Problem {
    /// What the caller can do about it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Denied { .. } => Kind::PermissionDenied,
            Self::NotFound(_) => Kind::NotFound,
            Self::Network { .. } | Self::Busy { .. } | Self::Stalled { .. } | Self::Token { .. } => Kind::Unavailable,
            Self::Auth(_) => Kind::InvalidArgument,
            Self::Hosts(_) | Self::Tls(_) | Self::NoHost(_) => Kind::FailedPrecondition,
            Self::Status { .. }
            | Self::TooLarge(_)
            | Self::Length { .. }
            | Self::Digest { .. }
            | Self::Redirect(_)
            | Self::Abandoned => Kind::Internal,
        }
    }
}

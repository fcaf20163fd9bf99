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
    #[error("{0}: correct the daemon's environment")]
    Proxy(String),
    #[error("access denied ({status}{detail}): {remedy}")]
    Denied { status: StatusCode, detail: String, remedy: &'static str },
    #[error("not found{0}: check the name and the tag, and that this registry has them")]
    NotFound(String),
    #[error("it sent us to {host}, which answered {status}{detail}: is the registry's storage set up well?")]
    Elsewhere { host: String, status: StatusCode, detail: String },
    #[error(
        "it answered {status}{detail}, which no registry should: check that it is one, and its address in hosts.toml"
    )]
    Status { status: StatusCode, detail: String },
    #[error("the registry is busy or broken ({status}{detail}), after {attempts} tries")]
    Busy { status: StatusCode, detail: String, attempts: u32 },
    #[error(
        "the registry cannot be reached, after {attempts} tries: check its name, the network, proxies and hosts.toml"
    )]
    Network { attempts: u32, source: NetworkError },
    #[error("no progress: less than {rate} bytes a second for {seconds} seconds, after {attempts} tries")]
    Stalled { rate: u64, seconds: u64, attempts: u32 },
    #[error(
        "the answer is larger than the limit of {0} bytes: if the image is meant to be like that, raise image.limits"
    )]
    TooLarge(u64),
    #[error(
        "the blob does not have {expected} bytes, as the manifest says ({got} came): it is corrupt at the registry"
    )]
    Length { got: u64, expected: u64 },
    #[error(
        "the content has the digest {got}, not {expected}: it is corrupt at the registry or was changed on its way"
    )]
    Digest { got: Digest, expected: Digest },
    #[error("{0}")]
    Protocol(String),
    #[error("the token server {realm} gave no token: {why}")]
    Token { realm: String, why: String },
    #[error(
        "the token server {0} is not reached over HTTPS, and credentials are not sent in the clear: set up TLS for it"
    )]
    Insecure(String),
    #[error("no host in hosts.toml has the capability {0:?}: add it to one")]
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
    /// What helps against errors of TLS, which do not pass by themselves.
    pub remedy: Option<&'static str>,
}

impl From<reqwest::Error> for NetworkError {
    fn from(error: reqwest::Error) -> Self {
        let connect = error.is_connect();
        let timeout = error.is_timeout();
        let error = error.without_url();
        let mut message = error.to_string();
        let mut remedy = tls_remedy(&error);
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            remedy = remedy.or_else(|| tls_remedy(error));
            cause = error.source();
        }
        if timeout && !message.contains("timed out") {
            message += ": timed out";
        }
        Self { message, connect, remedy }
    }
}

/// What an operator can do about an error of TLS, if this is one.
fn tls_remedy(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        // These hide their inner error from `source`.
        return tls_remedy(error.get_ref()?);
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(_) => {
            Some("set `ca` for it in hosts.toml to the certificate of the authority that signed its own")
        }
        rustls::Error::InvalidMessage(_) => {
            Some("it does not speak TLS; if it is meant to be reached in the clear, say so with http:// in hosts.toml")
        }
        rustls::Error::AlertReceived(_) => {
            Some("it refuses us; if it wants a client certificate, set `client` for it in hosts.toml")
        }
        rustls::Error::PeerIncompatible(_) => Some("it offers nothing that TLS 1.2 or 1.3 allows; renew its software"),
        _ => None,
    }
}

impl NetworkError {
    pub(crate) fn timeout(what: &str) -> Self {
        Self { message: format!("timed out while waiting for {what}"), connect: false, remedy: None }
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
            Self::Hosts(_) | Self::Tls(_) | Self::Proxy(_) | Self::Insecure(_) | Self::NoHost(_) => {
                Kind::FailedPrecondition
            }
            Self::Status { .. }
            | Self::Elsewhere { .. }
            | Self::TooLarge(_)
            | Self::Length { .. }
            | Self::Digest { .. }
            | Self::Protocol(_)
            | Self::Abandoned => Kind::Internal,
        }
    }
}

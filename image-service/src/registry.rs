//! A client of registries: manifests and blobs over HTTP, with authentication, mirrors, retries and limits.
//!
//! A [`Session`] is one pull: it has the credentials, the tokens made from them, and what it learnt about dead mirrors.
//! Sessions share connections only.

mod answer;
mod ask;
pub(crate) mod auth;
mod body;
pub(crate) mod download;
mod error;
pub(crate) mod hosts;
pub(crate) mod proxies;
mod ranges;
mod referrers;
mod session;
mod tls;
mod token;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::Semaphore;

pub(crate) use error::{Problem, RegistryError};
pub(crate) use referrers::{Listed, Wanted};
pub(crate) use session::{Resolved, Session};

use crate::{
    config::{Config, Limits, Ranges, Timeouts},
    reference::Reference,
};

/// What sessions share.
#[derive(Debug)]
pub(crate) struct Registries {
    certs_dir: PathBuf,
    timeouts: Timeouts,
    limits: Limits,
    ranges: Ranges,
    /// One for each piece of a blob that is in memory.
    pieces: Arc<Semaphore>,
    clients: tls::Clients,
}

impl Registries {
    pub(crate) fn new(config: &Config) -> Self {
        let clients = tls::Clients::new(config.timeouts.connect(), config.proxies.clone());
        Self {
            certs_dir: config.certs_dir.clone(),
            timeouts: config.timeouts,
            limits: config.limits,
            ranges: config.ranges,
            pieces: Arc::new(Semaphore::new(config.ranges.pieces())),
            clients,
        }
    }

    /// A place beside registries where signatures of an image lie.
    pub(crate) fn lookaside(self: &Arc<Self>, reference: &Reference, base: &str) -> Result<Session, RegistryError> {
        Session::lookaside(Arc::clone(self), reference, base)
    }

    /// Begins a pull.
    pub(crate) fn session(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<&auth::RegistryAuth>,
    ) -> Result<Session, RegistryError> {
        Session::new(Arc::clone(self), reference, auth)
    }
}

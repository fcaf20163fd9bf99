//! HTTP clients, one for each set of TLS settings; their connections are shared by all pulls.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{Certificate, Client, Identity, Proxy};

use super::{error::Problem, hosts::Host, proxies::Proxies};
use crate::digest::Digest;

/// Clients that are kept. Renewed certificates make new ones.
const KEPT: usize = 64;

#[derive(Debug)]
pub(crate) struct Clients {
    connect: Duration,
    proxies: Proxies,
    made: Mutex<HashMap<Digest, Client>>,
}

impl Clients {
    pub(crate) fn new(connect: Duration, proxies: Proxies) -> Self {
        Self { connect, proxies, made: Mutex::default() }
    }

    /// The client for a host. Certificates are read each time, so that a renewed one is used at the next pull.
    pub(crate) fn get(&self, host: &Host) -> Result<Client, Problem> {
        let connect = host.dial_timeout.unwrap_or(self.connect);
        let mut key = vec![u8::from(host.skip_verify), u8::from(host.base.scheme() == "https")];
        key.extend(connect.as_nanos().to_le_bytes());
        let mut roots = Vec::new();
        for path in &host.ca {
            let pem = read(path)?;
            let found = Certificate::from_pem_bundle(&pem).map_err(|error| invalid(path, &error))?;
            if found.is_empty() {
                return Err(Problem::Tls(format!("{} has no certificate", path.display())));
            }
            roots.extend(found);
            key.extend(pem);
            key.push(0);
        }
        let mut identity = None;
        // A client shows one certificate; the first is the one that the field uses too.
        if let Some((certificate, private)) = host.client.first() {
            let mut pem = read(certificate)?;
            if let Some(private) = private {
                pem.push(b'\n');
                pem.extend(read(private)?);
            }
            identity = Some(Identity::from_pem(&pem).map_err(|error| invalid(certificate, &error))?);
            key.push(1);
            key.extend(pem);
        }
        let key = Digest::of(&key);
        if let Some(client) = self.made().get(&key) {
            return Ok(client.clone());
        }
        let client = build(host, roots, identity, connect, self.proxies.rule()?)?;
        let mut made = self.made();
        if made.len() >= KEPT {
            made.clear();
        }
        made.insert(key, client.clone());
        Ok(client)
    }

    fn made(&self) -> MutexGuard<'_, HashMap<Digest, Client>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(
    host: &Host,
    roots: Vec<Certificate>,
    identity: Option<Identity>,
    connect: Duration,
    proxy: Option<Proxy>,
) -> Result<Client, Problem> {
    // The client takes the process's provider of cryptography; whoever was first has set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("tripod/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect)
        .pool_idle_timeout(Duration::from_secs(20))
        .tcp_keepalive(Duration::from_secs(15))
        // Redirects are followed by the session, which knows whom credentials are for.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    builder = if host.base.scheme() == "https" {
        builder.tls_certs_merge(roots).tls_danger_accept_invalid_certs(host.skip_verify)
    } else {
        // Reading the system's certificates takes longer than a small pull; plain HTTP needs none.
        builder.tls_certs_only([]).https_only(false)
    };
    // Ours are the environment's, as it was when the daemon was started.
    builder = builder.no_proxy();
    if let Some(proxy) = proxy {
        builder = builder.proxy(proxy);
    }
    if let Some(identity) = identity {
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| {
        let mut message = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            message = format!("{message}: {cause}");
        }
        Problem::Tls(format!("TLS cannot be set up ({message}): is the package ca-certificates installed?"))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error| Problem::Tls(format!("cannot read {}: {error}", path.display())))
}

fn invalid(path: &Path, error: &reqwest::Error) -> Problem {
    Problem::Tls(format!("{} is not a usable certificate in PEM form: {error}", path.display()))
}

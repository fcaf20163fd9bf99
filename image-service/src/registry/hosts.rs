//! Where the images of a registry come from: `certs.d/HOST/hosts.toml`, in the format that containerd has.
//!
//! Mirrors are asked in the order of the file, the registry itself last. Without a file, or without the folder, there
//! is the registry alone: over HTTPS, or over HTTP on this host.

mod file;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Url, header::HeaderMap};
use thiserror::Error;

use self::file::FileHost;

/// Why a registry's settings cannot be used.
#[derive(Debug, Error)]
pub enum HostsError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is not valid: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The registry's name gives no address.
    #[error("the registry {0:?} cannot be made into an address")]
    Address(String),
}

/// One place to ask.
#[derive(Clone)]
pub(crate) struct Host {
    /// Up to and with `/v2`, or what stands in its place; without a slash at the end.
    pub base: Url,
    /// Knows which digest a tag has.
    pub resolve: bool,
    /// Has manifests and blobs.
    pub pull: bool,
    /// Does not check the server's certificate.
    pub skip_verify: bool,
    /// More certificates to trust.
    pub ca: Vec<PathBuf>,
    /// Certificates, with their keys if those are in files of their own.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Sent with every request to this host, and to no other.
    pub headers: HeaderMap,
    /// How long a connection may take, if not as long as anywhere.
    pub dial_timeout: Option<Duration>,
    /// The registry itself, not a mirror of it.
    pub upstream: bool,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("base", &self.base.as_str())
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl Host {
    fn new(base: Url) -> Self {
        Self {
            base,
            resolve: true,
            pull: true,
            skip_verify: false,
            ca: Vec::new(),
            client: Vec::new(),
            headers: HeaderMap::new(),
            dial_timeout: None,
            upstream: false,
        }
    }

    /// A server that is asked for what is below this URL, as one asks a registry itself.
    pub(super) fn at(base: &str) -> Result<Self, HostsError> {
        let invalid = || HostsError::Address(base.to_owned());
        let url = Url::parse(base.trim_end_matches('/')).map_err(|_| invalid())?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
            return Err(invalid());
        }
        Ok(Self { upstream: true, ..Self::new(url) })
    }

    /// Host and port, for messages.
    pub(crate) fn name(&self) -> String {
        authority(&self.base)
    }

    /// Whether a URL leads to the same server.
    pub(crate) fn same_origin(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }
}

/// Host and port of a URL.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The places to ask for images of a registry, in order.
pub(crate) fn hosts(certs_dir: &Path, registry: &str) -> Result<Vec<Host>, HostsError> {
    let upstream = upstream(registry)?;
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    for name in with_port.iter().map(String::as_str).chain([registry, "_default"]) {
        let dir = certs_dir.join(name);
        let path = dir.join("hosts.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => return parse(&text, &path, registry, &upstream),
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(HostsError::Read { path, source }),
            Err(_) => {}
        }
        if let Some(host) = docker_layout(&dir, upstream.clone())? {
            return Ok(vec![host]);
        }
    }
    Ok(vec![upstream])
}

/// The registry itself.
fn upstream(registry: &str) -> Result<Host, HostsError> {
    let address = if registry == crate::reference::DEFAULT_REGISTRY { "registry-1.docker.io" } else { registry };
    let invalid = |_| HostsError::Address(registry.to_owned());
    let mut url = Url::parse(&format!("https://{address}/v2")).map_err(invalid)?;
    if is_local(&url) && url.port().is_some() {
        // Registries on this host speak HTTP unless a hosts.toml says otherwise, as everywhere in the field.
        url = Url::parse(&format!("http://{address}/v2")).map_err(invalid)?;
    }
    Ok(Host { upstream: true, ..Host::new(url) })
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn parse(text: &str, path: &Path, registry: &str, upstream: &Host) -> Result<Vec<Host>, HostsError> {
    let invalid = |why: String| HostsError::Invalid { path: path.to_owned(), why };
    let mut file: toml::Table = text.parse().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
    let mirrors = match file.remove("host") {
        Some(toml::Value::Table(mirrors)) => mirrors,
        None => toml::Table::new(),
        Some(_) => return Err(invalid("host is not a table".into())),
    };
    let server = match file.remove("server") {
        Some(toml::Value::String(server)) => Some(server),
        None => None,
        Some(_) => return Err(invalid("server is not a string".into())),
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let make = |url: &str, settings: toml::Value| {
        let table = settings.as_table().ok_or_else(|| format!("host.{url:?} is not a table"))?;
        if let Some(key) = table.keys().find(|key| !file::KEYS.contains(&key.as_str())) {
            let known = file::KEYS.join(", ");
            return Err(format!("{url}: there is no setting {key:?} (those of a host are {known})"));
        }
        let settings: FileHost =
            settings.try_into().map_err(|error: toml::de::Error| format!("{url}: {}", error.message()))?;
        file::host(url, settings, dir)
    };
    let mut hosts = Vec::new();
    for (url, settings) in mirrors {
        let host = make(&url, settings).map_err(invalid)?;
        // A mirror that is the registry itself is where its credentials belong.
        hosts.push(Host { upstream: host.same_origin(&upstream.base), ..host });
    }
    let settings = toml::Value::Table(file);
    let mut last = match server.as_deref() {
        Some(server) => make(server, settings),
        None => make(upstream.base.as_str().trim_end_matches("/v2"), settings),
    }
    .map_err(invalid)?;
    // What _default names as server stands in for every registry: it is a mirror, and gets no registry's credentials.
    last.upstream =
        last.same_origin(&upstream.base) || server.is_some() && dir.file_name().is_some_and(|name| name != "_default");
    // Named a second time as a mirror, to set its capabilities, the server is still the server.
    for host in hosts.iter_mut().filter(|host| host.same_origin(&last.base)) {
        host.upstream |= last.upstream;
    }
    hosts.push(last);
    hosts.dedup_by(|second, first| first.base == second.base);
    if hosts.iter().all(|host| !host.pull) {
        return Err(invalid(format!("nothing in it has the capability \"pull\" for {registry}")));
    }
    Ok(hosts)
}

/// Docker's way: `NAME.crt` to trust, `NAME.cert` and `NAME.key` to show. `None` without any of these.
fn docker_layout(dir: &Path, mut host: Host) -> Result<Option<Host>, HostsError> {
    let failed = |source| HostsError::Read { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => host.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                host.client.push((path, Some(key)));
            }
            _ => {}
        }
    }
    Ok((!host.ca.is_empty() || !host.client.is_empty()).then_some(host))
}

#[cfg(test)]
mod tests;

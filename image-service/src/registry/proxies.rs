//! Which proxy leads to a host: what the environment says, read as the rest of the field reads it.

use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::{Proxy, Url};

use super::error::Problem;

/// Proxies for registries, as the environment of a process names them. The default is none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// `HTTP_PROXY`: for addresses that begin with `http:`.
    pub http: String,
    /// `HTTPS_PROXY`: for those that begin with `https:`.
    pub https: String,
    /// `NO_PROXY`: hosts that are reached directly, with commas between them.
    pub none: String,
}

impl std::fmt::Debug for Proxies {
    // Their addresses may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies").field("none", &self.none).finish_non_exhaustive()
    }
}

impl Proxies {
    /// Those of this process; names in lower case count too, and `ALL_PROXY` stands in for both.
    pub fn from_env() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            let value = variable(name).filter(|value| !value.trim().is_empty());
            value.or_else(|| variable(&name.to_lowercase())).unwrap_or_default().trim().to_owned()
        };
        let or_all = |value: String| if value.is_empty() { get("ALL_PROXY") } else { value };
        Self { http: or_all(get("HTTP_PROXY")), https: or_all(get("HTTPS_PROXY")), none: get("NO_PROXY") }
    }

    /// In the form that the HTTP client takes; `None` without any.
    pub(super) fn rule(&self) -> Result<Option<Proxy>, Problem> {
        let http = address("HTTP_PROXY", &self.http)?;
        let https = address("HTTPS_PROXY", &self.https)?;
        if http.is_none() && https.is_none() {
            return Ok(None);
        }
        let direct: Vec<Direct> = self.none.split(',').filter_map(Direct::parse).collect();
        Ok(Some(Proxy::custom(move |url| {
            let proxy = if url.scheme() == "https" { &https } else { &http };
            proxy.clone().filter(|_| !is_direct(&direct, url))
        })))
    }
}

fn address(name: &str, value: &str) -> Result<Option<Url>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let full = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    // The value itself may hold a password.
    let url = Url::parse(&full).map_err(|error| Problem::Proxy(format!("{name} is not a proxy's address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        let why = format!("{name} names a proxy of the kind {:?}; there are http and https", url.scheme());
        return Err(Problem::Proxy(why));
    }
    Ok(Some(url))
}

/// One part of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Direct {
    All,
    Net(IpNet),
    /// A name and all below it, or only those below it.
    Name {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
    Address(IpAddr, Option<u16>),
}

impl Direct {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::All);
        }
        if let Ok(net) = text.parse() {
            return Some(Self::Net(net));
        }
        let plain = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>();
        if let Ok(address) = plain(&text) {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(address) = plain(host) {
            return Some(Self::Address(address, port));
        }
        let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
        Some(Self::Name { name: below.unwrap_or(host).to_owned(), itself: below.is_none(), port })
    }

    fn matches(&self, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        match self {
            Self::All => true,
            Self::Net(net) => address.is_some_and(|address| net.contains(&address)),
            Self::Address(wanted, on) => address == Some(*wanted) && (on.is_none() || *on == port),
            Self::Name { name, itself, port: on } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || *itself && host == name) && (on.is_none() || *on == port)
            }
        }
    }
}

/// Whether no proxy is wanted for an address. This host is always reached directly.
fn is_direct(direct: &[Direct], url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    let address = host.parse::<IpAddr>().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    direct.iter().any(|direct| direct.matches(host, address, url.port_or_known_default()))
}

#[cfg(test)]
mod tests;

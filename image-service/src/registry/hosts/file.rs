//! The format of `hosts.toml`, host by host.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{
    Url,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;

use super::Host;

/// Settings of a host, and of the server at the top of the file.
pub(super) const KEYS: [&str; 7] =
    ["capabilities", "override_path", "skip_verify", "ca", "client", "header", "dial_timeout"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FileHost {
    capabilities: Option<Vec<String>>,
    override_path: bool,
    skip_verify: bool,
    ca: OneOrMany<PathBuf>,
    client: Option<Client>,
    header: BTreeMap<String, OneOrMany<String>>,
    dial_timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// `"both.pem"`, `["a.pem", "b.pem"]` or `[["cert.pem", "key.pem"], …]`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Client {
    One(PathBuf),
    Many(Vec<OneOrMany<PathBuf>>),
}

pub(super) fn host(url: &str, settings: FileHost, dir: &Path) -> Result<Host, String> {
    let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
    let mut base = Url::parse(&full).map_err(|error| format!("{url:?} is not a URL: {error}"))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(format!("{url:?} is not an HTTP or HTTPS URL"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err("credentials do not belong into the URL: use a header".into());
    }
    let path = base.path().trim_end_matches('/').to_owned();
    let path = if settings.override_path || path.ends_with("/v2") { path } else { format!("{path}/v2") };
    base.set_path(&path);
    base.set_query(None);
    let mut host = Host::new(base);
    if let Some(capabilities) = &settings.capabilities {
        // The last is for clients that push, and means nothing to us.
        let known = ["pull", "resolve", "push"];
        if let Some(other) = capabilities.iter().find(|capability| !known.contains(&capability.as_str())) {
            return Err(format!("{url}: {other:?} is not a capability ({})", known.join(", ")));
        }
        let has = |name: &str| capabilities.iter().any(|capability| capability == name);
        (host.resolve, host.pull) = (has("resolve"), has("pull"));
    }
    if let Some(text) = &settings.dial_timeout {
        let timeout = duration(text).filter(|timeout| !timeout.is_zero());
        host.dial_timeout = Some(timeout.ok_or_else(|| {
            format!(
                "{url}: dial_timeout {text:?} is not a length of time: write it like \"500ms\", \"3s\" or \"1m30s\""
            )
        })?);
    }
    host.skip_verify = settings.skip_verify;
    host.ca = settings.ca.into_vec().into_iter().map(|path| dir.join(path)).collect();
    host.client = match settings.client {
        None => Vec::new(),
        Some(Client::One(path)) => vec![(dir.join(path), None)],
        Some(Client::Many(list)) => list.into_iter().map(|item| pair(item, dir)).collect::<Result<_, _>>()?,
    };
    for (name, values) in settings.header {
        let header = HeaderName::try_from(&name).map_err(|_| format!("{name:?} is not the name of a header"))?;
        for value in values.into_vec() {
            let mut value =
                HeaderValue::try_from(value).map_err(|_| format!("header {name:?} has a value that cannot be sent"))?;
            value.set_sensitive(true);
            host.headers.append(&header, value);
        }
    }
    Ok(host)
}

/// A length of time as Go writes it: numbers with units, one after the other.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).ok()
}

fn pair(item: OneOrMany<PathBuf>, dir: &Path) -> Result<(PathBuf, Option<PathBuf>), String> {
    match item.into_vec().as_slice() {
        [both] => Ok((dir.join(both), None)),
        [certificate, key] if key.as_os_str().is_empty() => Ok((dir.join(certificate), None)),
        [certificate, key] => Ok((dir.join(certificate), Some(dir.join(key)))),
        other => Err(format!("client needs a file, or a certificate and its key, not {} files", other.len())),
    }
}

#[cfg(test)]
mod tests;

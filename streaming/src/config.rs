//! Settings of the streaming server; the daemon's configuration file has them as a section of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Where clients come to, for how long, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub address: SocketAddr,
    /// What URLs begin with, as `https://node.example:10250/streams`, when clients reach the listener under another
    /// address than its own. Empty names the listener's address, and the host's own one in place of 0.0.0.0 and ::.
    pub base_url: String,
    /// Certificates; without them connections are in clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Seconds in which a URL must be used.
    pub token_seconds: u64,
    /// URLs that are given out and not used yet, at most.
    pub max_tokens: usize,
    /// Seconds in which a client must open the streams of its session.
    pub creation_seconds: u64,
    /// Seconds after which a session ends in which no byte moves in either direction; 0 waits for ever.
    pub idle_seconds: u64,
    /// Sessions at the same time, at most.
    pub max_sessions: usize,
}

/// Certificates of the streaming server, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// File with the server's certificate, and after it those between it and a well-known authority.
    pub certificate: PathBuf,
    /// File with the certificate's private key.
    pub key: PathBuf,
    /// File with the authorities of clients: only clients with a certificate of theirs are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            base_url: String::new(),
            tls: None,
            token_seconds: 60,
            max_tokens: 1000,
            creation_seconds: 30,
            idle_seconds: 4 * 60 * 60,
            max_sessions: 4096,
        }
    }
}

impl Config {
    /// How long a session may be silent.
    pub(crate) fn idle(&self) -> Option<Duration> {
        (self.idle_seconds > 0).then(|| Duration::from_secs(self.idle_seconds))
    }

    /// How long a client may take to open its streams.
    pub(crate) fn creation(&self) -> Duration {
        Duration::from_secs(self.creation_seconds)
    }
}

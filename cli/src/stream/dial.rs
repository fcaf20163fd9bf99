//! Connections to the URLs that the daemon gives for streams: over TCP, and over TLS where the URL says `https`.
//!
//! The URL comes over the daemon's socket, which only its owner can open. What has to be made sure of is that nobody
//! sits between: on loopback nobody can, elsewhere the certificate must be one that the operator names, or signed by
//! one.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::Uri;

use super::trust;
use crate::{CliError, args::Streaming};

/// How long the streaming server may take to accept a connection, with TLS and the change of protocol.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// A connection, whatever it runs over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to the host of a URL.
pub(crate) async fn dial(uri: &Uri, files: &Streaming) -> Result<Box<dyn Wire>, CliError> {
    let refuse = |why: &str| CliError::Stream(format!("the daemon gave the URL {uri}, {why}"));
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(refuse("which is neither http nor https")),
    };
    let host = uri.host().ok_or_else(|| refuse("which names no host"))?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let step = || format!("connect to the daemon's streaming server at {host}:{port}");
    let connect = async {
        let stream = TcpStream::connect((host, port)).await.map_err(CliError::io(step()))?;
        // Keys are single bytes that somebody waits for.
        stream.set_nodelay(true).map_err(CliError::io(step()))?;
        if !tls {
            return Ok(Box::new(stream) as Box<dyn Wire>);
        }
        let address = stream.peer_addr().map_err(CliError::io(step()))?;
        let connector = TlsConnector::from(Arc::new(trust::config(address, files)?));
        let name = ServerName::try_from(host.to_owned()).map_err(|_| refuse("whose host no certificate can name"))?;
        let stream = connector.connect(name, stream).await.map_err(CliError::io(step()))?;
        Ok(Box::new(stream) as Box<dyn Wire>)
    };
    let seconds = CONNECT.as_secs();
    timeout(CONNECT, connect)
        .await
        .unwrap_or_else(|_| Err(refuse(&format!("and nobody answers there within {seconds} s"))))
}

//! Connections to the URLs that the daemon gives for streams: over TCP, and over TLS where the URL says `https`.
//!
//! The URL comes over the daemon's socket, which only its owner can open. What has to be made sure of is that nobody
//! sits between: on loopback nobody can, elsewhere the certificate must be signed by one that the operator names.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::Uri;

use crate::CliError;

/// How long the streaming server may take to accept a connection, with TLS and the change of protocol.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// A connection, whatever it runs over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to the host of a URL. `ca` is a file of certificates in PEM.
pub(crate) async fn dial(uri: &Uri, ca: Option<&Path>) -> Result<Box<dyn Wire>, CliError> {
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
        let connector = TlsConnector::from(Arc::new(config(address, ca)?));
        let name = ServerName::try_from(host.to_owned()).map_err(|_| refuse("whose host no certificate can name"))?;
        let stream = connector.connect(name, stream).await.map_err(CliError::io(step()))?;
        Ok(Box::new(stream) as Box<dyn Wire>)
    };
    let seconds = CONNECT.as_secs();
    timeout(CONNECT, connect)
        .await
        .unwrap_or_else(|_| Err(refuse(&format!("and nobody answers there within {seconds} s"))))
}

/// Whom to trust at an address.
fn config(address: SocketAddr, ca: Option<&Path>) -> Result<ClientConfig, CliError> {
    let provider = Arc::new(ring::default_provider());
    let wrong = |error: rustls::Error| CliError::Stream(format!("TLS to {address}: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(wrong)?;
    let builder = match ca {
        Some(file) => builder.with_root_certificates(roots(file)?),
        None if address.ip().is_loopback() => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Loopback(provider)))
        }
        None => {
            return Err(CliError::Usage(format!(
                "the daemon's streaming server at {address} speaks TLS: name the file of the certificate that signs \
                 its own with --streaming-ca FILE or TRIPOD_STREAMING_CA"
            )));
        }
    };
    Ok(builder.with_no_client_auth())
}

fn roots(file: &Path) -> Result<RootCertStore, CliError> {
    let wrong = |why: String| CliError::Usage(format!("--streaming-ca {}: {why}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// Takes any certificate, for connections that do not leave this machine: the port is the daemon's own, and over plain
/// HTTP, which is what it speaks there unless told otherwise, it would be trusted no less.
#[derive(Debug)]
struct Loopback(Arc<CryptoProvider>);

impl ServerCertVerifier for Loopback {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

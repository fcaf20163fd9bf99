//! Streams over TLS: on loopback any certificate will do, unless the operator names one.

use std::{path::Path, process::Command, sync::Arc};

use libtest_mimic::Trial;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    command::{outcome, tripod},
    daemon::{Daemon, accept},
    test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![test("a_named_certificate_is_the_only_one", a_named_certificate_is_the_only_one)]
}

/// A certificate that signs itself, and its key.
fn certificate(folder: &Path, name: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=streams", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(folder.join(format!("{name}.pem")))
        .output()
        .expect("openssl (Debian: openssl)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

async fn a_named_certificate_is_the_only_one() {
    use futures::SinkExt;
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "server");
    certificate(folder.path(), "other");
    let chain = vec![CertificateDer::from_pem_file(folder.path().join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.path().join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let daemon = Daemon::start_raw("https", move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let mut socket = accept(stream).await;
                let status = Message::Binary(b"\x03{\"status\":\"Success\"}"[..].into());
                socket.send(status).await.unwrap();
                let _ = socket.close(None).await;
            }
        }
    })
    .await;
    let run = async |name: Option<&str>| {
        let mut command = tripod(&daemon.socket(), &["exec", "web", "true"]);
        if let Some(name) = name {
            command.env("TRIPOD_STREAMING_CA", folder.path().join(name));
        }
        let output = outcome(command, b"").await;
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(None).await, (0, String::new()));
    assert_eq!(run(Some("server.pem")).await, (0, String::new()));
    let (code, text) = run(Some("other.pem")).await;
    assert!(code == 125 && text.contains("certificate"), "{text}");
    let (code, text) = run(Some("none.pem")).await;
    assert!(code == 125 && text.contains("--streaming-ca") && text.contains("none.pem"), "{text}");
    let (code, text) = run(Some("server.key")).await;
    assert!(code == 125 && text.contains("no certificate in it"), "{text}");
}

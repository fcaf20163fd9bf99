//! Streams over TLS: on loopback any certificate will do, unless the operator names one.

use std::{path::Path, process::Command, sync::Arc};

use libtest_mimic::Trial;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    command::{outcome, tripod},
    daemon::{Daemon, accept},
    test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("a_named_certificate_is_the_only_one", a_named_certificate_is_the_only_one),
        test("a_client_shows_its_certificate", a_client_shows_its_certificate),
    ]
}

/// A certificate and its key: one that signs itself, or a client's that another one has signed.
fn certificate(folder: &Path, name: &str, signer: Option<&str>) {
    let file = |name: &str, kind: &str| folder.join(format!("{name}.{kind}"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:localhost"]);
    command.arg("-keyout").arg(file(name, "key")).arg("-out").arg(file(name, "pem"));
    if let Some(signer) = signer {
        command.arg("-CA").arg(file(signer, "pem")).arg("-CAkey").arg(file(signer, "key"));
        command.args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=clientAuth"]);
    }
    let made = command.output().expect("openssl (Debian: openssl)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A daemon that speaks TLS, to clients of the same authority if it is told so.
async fn daemon(folder: &Path, only_its_own: bool) -> Daemon {
    use futures::SinkExt;
    let read = |name| CertificateDer::from_pem_file(folder.join(name)).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = match only_its_own {
        false => config.with_no_client_auth(),
        true => {
            let mut roots = RootCertStore::empty();
            roots.add(read("server.pem")).unwrap();
            let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.with_client_cert_verifier(clients)
        }
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![read("server.pem")], key).unwrap()));
    Daemon::start_raw("https", move |stream| {
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
    .await
}

/// Runs a command with files of these names in its environment: its exit code, and what it says.
async fn run(daemon: &Daemon, folder: &Path, files: &[(&str, &str)]) -> (i32, String) {
    let mut command = tripod(&daemon.socket(), &["exec", "web", "true"]);
    command.envs(files.iter().map(|(name, file)| (format!("TRIPOD_STREAMING_{name}"), folder.join(file))));
    let output = outcome(command, b"").await;
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn a_named_certificate_is_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificate(folder, "server", None);
    certificate(folder, "other", None);
    let daemon = daemon(folder, false).await;
    assert_eq!(run(&daemon, folder, &[]).await, (0, String::new()));
    assert_eq!(run(&daemon, folder, &[("CA", "server.pem")]).await, (0, String::new()));
    let (code, text) = run(&daemon, folder, &[("CA", "other.pem")]).await;
    assert!(code == 125 && text.contains("certificate"), "{text}");
    let (code, text) = run(&daemon, folder, &[("CA", "none.pem")]).await;
    assert!(code == 125 && text.contains("--streaming-ca") && text.contains("none.pem"), "{text}");
    let (code, text) = run(&daemon, folder, &[("CA", "server.key")]).await;
    assert!(code == 125 && text.contains("no certificate in it"), "{text}");
}

async fn a_client_shows_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificate(folder, "server", None);
    certificate(folder, "client", Some("server"));
    let daemon = daemon(folder, true).await;
    let (code, text) = run(&daemon, folder, &[]).await;
    assert!(code == 125 && text.contains("ertificate"), "{text}");
    assert_eq!(run(&daemon, folder, &[("CERT", "client.pem"), ("KEY", "client.key")]).await, (0, String::new()));
    let (code, text) = run(&daemon, folder, &[("CERT", "client.pem"), ("KEY", "none.key")]).await;
    assert!(code == 125 && text.contains("none.key"), "{text}");
}

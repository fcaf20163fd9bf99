//! Sessions inside TLS, for everybody or for clients with a certificate. Certificates are made by `openssl`.

use std::{path::Path, process::Command, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tripod_streaming::{Config, Server, Tls};

use crate::{
    http::connect,
    spdy_client::{Client, exit_code},
    world::{ALL, OUT, World},
    ws_client,
};

fn openssl(folder: &Path, args: &str) {
    let done = Command::new("openssl").args(args.split(' ')).current_dir(folder).output();
    let done = done.expect("openssl cannot be run: install Debian's package openssl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// An authority, a server's certificate for 127.0.0.1 and a client's.
fn certificates(folder: &Path) {
    std::fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    std::fs::write(folder.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("req -x509 {new} -keyout ca.key -out ca.crt -subj /CN=ca -days 2"));
    for name in ["server", "client"] {
        openssl(folder, &format!("req {new} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let signed = format!("-CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext");
        openssl(folder, &format!("x509 -req -in {name}.csr -out {name}.crt {signed}"));
    }
}

/// A client's connection; `known` shows its certificate.
async fn secure(folder: &Path, url: &str, known: bool) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = if known {
        let certificate = CertificateDer::from_pem_file(folder.join("client.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("client.key")).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, connect(url).await).await
}

fn config(folder: &Path, authority: bool) -> Config {
    let file = |name: &str| folder.join(name);
    let client_ca = authority.then(|| file("ca.crt"));
    Config {
        tls: Some(Tls { certificate: file("server.crt"), key: file("server.key"), client_ca }),
        ..Config::default()
    }
}

#[tokio::test]
async fn commands_run_inside_tls() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    for authority in [false, true] {
        let world = World::with(config(folder.path(), authority)).await;
        let url = world.sh("cat; exit 3", ALL);
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        let io = secure(folder.path(), &url, authority).await.unwrap();
        let mut client = Client::over(io, &url, "v4.channel.k8s.io", ALL).await;
        let data = vec![b'x'; 1 << 20];
        let mut stdin = client.stdin.take().unwrap();
        let sent = data.clone();
        let sending = tokio::spawn(async move {
            stdin.write(&sent).await.unwrap();
            stdin.finish().await.unwrap();
        });
        let (stdout, _, status) = client.finish().await;
        assert!(stdout == data);
        assert_eq!(exit_code(&status), 3);
        sending.await.unwrap();

        let url = world.sh("echo out; exit 4", OUT);
        let io = secure(folder.path(), &url, authority).await.unwrap();
        let url = url.replacen("https", "http", 1);
        let told = ws_client::Client::over(io, &url, "v5.channel.k8s.io").await.finish().await;
        assert_eq!((&*told.channels[1], exit_code(&told.status())), (&b"out\n"[..], 4));
        world.stop().await;
    }
}

#[tokio::test]
async fn strangers_are_not_served() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let world = World::with(config(folder.path(), true)).await;
    let url = world.sh("true", OUT);
    let refused = match secure(folder.path(), &url, false).await {
        Err(_) => true,
        // The newest TLS tells a client after its own handshake.
        Ok(mut io) => tokio::io::AsyncReadExt::read_u8(&mut io).await.is_err(),
    };
    assert!(refused);
    assert_eq!(world.server.waiting(), 1, "the URL still waits for its client");
    world.stop().await;
}

#[tokio::test]
async fn certificates_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    std::fs::write(folder.path().join("empty"), "").unwrap();
    let at = |name: &str| folder.path().join(name);
    let (crt, key) = (at("server.crt"), at("server.key"));
    for (certificate, key, client_ca, word) in [
        (at("absent"), key.clone(), None, "absent"),
        (at("empty"), key.clone(), None, "empty"),
        (crt.clone(), at("client.key"), None, "client.key"),
        (crt.clone(), crt.clone(), None, "server.crt"),
        (crt.clone(), key.clone(), Some(at("empty")), "empty"),
    ] {
        let config = Config { tls: Some(Tls { certificate, key, client_ca }), ..Config::default() };
        let error = Server::bind(&config, Arc::new(crate::world::Host)).await.unwrap_err();
        assert!(error.to_string().contains(word) && error.to_string().contains("streaming.tls"), "{error}");
    }
}

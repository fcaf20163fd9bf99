//! Registries behind TLS: whom we trust, and who we say we are. Certificates are made by `openssl`.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tripod_engine::Kind;

use super::{
    fake::{Fake, Reply},
    fixture::{Image, Tar},
    registry::Registry,
    root::Root,
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
    openssl(
        folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2",
    );
    for name in ["server", "client"] {
        openssl(
            folder,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 2 -extfile {name}.ext"
            ),
        );
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same images behind TLS, for clients with a certificate only.
async fn serve(folder: &Path, data: &Path) -> (Server, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: 127.0.0.1:{port}\n  tls:\n    certificate: {}\n    key: {}\n    clientcas: [{}]\n",
        data.display(),
        path("server.crt"),
        path("server.key"),
        path("ca.crt")
    );
    std::fs::write(folder.join("config.yml"), config).unwrap();
    let server = Command::new("docker-registry")
        .arg("serve")
        .arg(folder.join("config.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let server = Server(server.unwrap());
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return (server, format!("127.0.0.1:{port}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("docker-registry does not listen");
}

#[tokio::test]
async fn certificates_are_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let image = Image::new(vec![Tar::new().file("f", "x").gzip()]);
    let data = folder.path().join("data");
    image.push(&Registry::start_in(Some(&data)).await.address, "x", "v1").await;
    let (_server, address) = serve(folder.path(), &data).await;
    let root = Root::new().await;
    let settings = root.folder.path().join("certs.d").join(&address);
    std::fs::create_dir_all(&settings).unwrap();
    let name = format!("{address}/x:v1");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let client = format!("client = [[\"{}\", \"{}\"]]", file("client.crt"), file("client.key"));
    let trust = format!("ca = \"{}\"", file("ca.crt"));
    for (lines, word) in [
        (vec![client.as_str()], Some("certificate")),
        (vec![trust.as_str()], Some("ertificate")),
        (vec!["ca = \"absent.crt\""], Some("cannot read")),
        (vec!["skip_verify = true", client.as_str()], None),
        (vec![trust.as_str(), client.as_str()], None),
    ] {
        let text = format!("server = \"https://{address}\"\n{}\n", lines.join("\n"));
        std::fs::write(settings.join("hosts.toml"), &text).unwrap();
        match (root.pull(&name).await, word) {
            (Ok(pulled), None) => assert_eq!(pulled.id, image.id()),
            (Err(error), Some(word)) => {
                assert!(error.to_string().contains(word), "{text}: {error}");
                assert!(matches!(error.kind(), Kind::Unavailable | Kind::FailedPrecondition), "{error:?}");
            }
            (result, word) => panic!("{text}: {result:?}, expected {word:?}"),
        }
        root.images.remove(&image.id()).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_set_for_a_host_is_not_for_its_token_server() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let (_server, address) = serve(folder.path(), &folder.path().join("data")).await;
    let realm = format!("Bearer realm=\"https://{address}/v2/token\"");
    let fake = Fake::new(move |_| Reply::Answer(401, vec![("www-authenticate", realm.clone())], Vec::new())).await;
    let port = fake.address.rsplit_once(':').unwrap().1;
    let root = Root::new().await;
    let settings = root.folder.path().join("certs.d/registry.example");
    std::fs::create_dir_all(&settings).unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let client = format!("client = [[\"{}\", \"{}\"]]", file("client.crt"), file("client.key"));
    let trust = format!("ca = \"{}\"", file("ca.crt"));
    // The token server, which wants to see a certificate, is at 127.0.0.1; it knows no tokens, and answers 404.
    for (host, lines, kind, word) in [
        ("localhost", format!("skip_verify = true\n{client}"), Kind::FailedPrecondition, "127.0.0.1"),
        // The alert may be overtaken by the end of the connection, so that there is no more to say than its name.
        ("localhost", format!("{trust}\n{client}"), Kind::FailedPrecondition, "127.0.0.1"),
        ("127.0.0.1", format!("skip_verify = true\n{client}"), Kind::PermissionDenied, "404"),
        ("127.0.0.1", format!("{trust}\n{client}"), Kind::PermissionDenied, "404"),
    ] {
        std::fs::write(settings.join("hosts.toml"), format!("server = \"http://{host}:{port}\"\n{lines}\n")).unwrap();
        let error = root.pull("registry.example/x:v1").await.unwrap_err();
        let broken = host == "localhost" && error.kind() == Kind::Unavailable;
        assert!(error.kind() == kind || broken, "{host}, {lines}: {error}");
        assert!(error.to_string().contains(word), "{host}, {lines}: {error}");
    }
}

#[tokio::test]
async fn a_registry_without_tls_is_told() {
    let fake = Fake::new(|_| Reply::status(200)).await;
    let root = Root::new().await;
    let settings = root.folder.path().join("certs.d/registry.example");
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::write(settings.join("hosts.toml"), format!("server = \"https://{}\"\n", fake.address)).unwrap();
    let error = root.pull("registry.example/x:v1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    assert!(
        error.to_string().contains(&fake.address) && error.to_string().contains("http:// in hosts.toml"),
        "{error}"
    );
}

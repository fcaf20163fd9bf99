//! Debian's docker-registry: the real thing, for the main job.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    secrets::RegistryAuth,
};

use crate::{Image, eventually, image::CONFIG, registry::hosts_toml};

const PROGRAM: &str = "/usr/bin/docker-registry";

/// A running docker-registry with its own storage.
#[derive(Debug)]
pub struct DebianRegistry {
    process: Child,
    address: SocketAddr,
}

impl DebianRegistry {
    /// Starts one with its files in a folder.
    pub async fn start(folder: &Path) -> Self {
        assert!(Path::new(PROGRAM).exists(), "no {PROGRAM}: run scripts/setup, or install Debian's docker-registry");
        let address = free_address();
        let (storage, config) = (folder.join("registry"), folder.join("registry.yml"));
        let log = std::fs::File::create(folder.join("registry.log")).expect("the registry's log");
        let settings = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            storage.display()
        );
        std::fs::write(&config, settings).expect("write the registry's settings");
        let process = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the registry's log"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        eventually("docker-registry", Duration::from_secs(20), async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        Self { process, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends pulls of `host` here.
    pub fn serve_as(&self, host: &str, certs_dir: &Path) {
        hosts_toml(host, self.address, certs_dir);
    }

    /// Pushes an image as `REPOSITORY:TAG`.
    pub async fn push(&self, name: &str, image: &Image) {
        let client = client();
        let reference: Reference = format!("{}/{name}", self.address).parse().expect("a reference");
        let layers: Vec<ImageLayer> =
            image.layers.iter().map(|layer| ImageLayer::oci_v1_gzip(layer.blob.to_vec(), None)).collect();
        let config = Config::new(image.config_blob().to_vec(), CONFIG.to_owned(), None);
        client.push(&reference, &layers, config, &RegistryAuth::Anonymous, None).await.expect("push an image");
    }

    /// Pushes a blob to a repository as it is.
    pub async fn push_blob(&self, repository: &str, digest: &str, blob: Vec<u8>) {
        let reference: Reference = format!("{}/{repository}", self.address).parse().expect("a reference");
        let client = client();
        client.store_auth_if_needed(reference.resolve_registry(), &RegistryAuth::Anonymous).await;
        client.push_blob(&reference, blob, digest).await.expect("push a blob");
    }

    /// Pushes a manifest as it is, as `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
    pub async fn push_manifest(&self, name: &str, media_type: &str, manifest: Vec<u8>) {
        let reference: Reference = format!("{}/{name}", self.address).parse().expect("a reference");
        let client = client();
        client.store_auth_if_needed(reference.resolve_registry(), &RegistryAuth::Anonymous).await;
        let media_type = media_type.parse().expect("a header");
        client.push_manifest_raw(&reference, manifest, media_type).await.expect("push a manifest");
    }
}

fn client() -> Client {
    // It wants to know who would do TLS, even where nobody does. An error says that it knows already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The node is this test's alone: nobody takes the port in between.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("an address")
}

//! Small images made by hand, and how they get into a registry.
#![allow(dead_code, reason = "each user of this file needs its own part of it")]

use std::io::Write;

use reqwest::{Client, Url, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tripod_image_service::Digest;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// How a layer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Gzip,
    /// Several gzip members one after the other, as parallel compressors write them.
    GzipMembers,
    Zstd,
}

/// A layer, packed.
#[derive(Clone, Debug)]
pub struct Layer {
    pub diff_id: Digest,
    pub digest: Digest,
    pub blob: Vec<u8>,
    pub media_type: &'static str,
}

impl Layer {
    pub fn new(tar: &[u8], compression: Compression) -> Self {
        let gzip = |part: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        };
        let (blob, media_type) = match compression {
            Compression::Plain => (tar.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
            Compression::Gzip => (gzip(tar), "application/vnd.oci.image.layer.v1.tar+gzip"),
            Compression::GzipMembers => {
                (tar.chunks(700).flat_map(gzip).collect(), "application/vnd.docker.image.rootfs.diff.tar.gzip")
            }
            Compression::Zstd => (zstd::encode_all(tar, 3).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd"),
        };
        Self { diff_id: Digest::of(tar), digest: Digest::of(&blob), blob, media_type }
    }
}

/// Writes a tar archive entry by entry.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.mode(tar::HeaderMode::Complete);
        Self(builder)
    }

    /// Any entry; the path goes in as it is, however bad.
    pub fn entry(
        mut self,
        kind: tar::EntryType,
        path: &str,
        link: &str,
        content: &[u8],
        mode: u32,
        owner: (u64, u64),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        let name = &mut header.as_gnu_mut().unwrap().name;
        assert!(path.len() <= name.len());
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    /// PAX records for the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(tar::EntryType::Regular, path, "", content.as_bytes(), 0o644, (0, 0))
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, "", b"", 0o755, (0, 0))
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, b"", 0o777, (0, 0))
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Link, path, target, b"", 0o644, (0, 0))
    }

    pub fn device(mut self, path: &str, numbers: (u32, u32)) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Char);
        header.set_path(path).unwrap();
        header.set_mode(0o620);
        header.set_size(0);
        header.set_mtime(1_600_000_000);
        header.set_device_major(numbers.0).unwrap();
        header.set_device_minor(numbers.1).unwrap();
        header.set_cksum();
        self.0.append(&header, &[][..]).unwrap();
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    pub fn gzip(self) -> Layer {
        Layer::new(&self.finish(), Compression::Gzip)
    }
}

/// An image, ready to be served.
#[derive(Clone, Debug)]
pub struct Image {
    pub layers: Vec<Layer>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self::with(layers, &json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "User": "1000:7"}))
    }

    pub fn with(layers: Vec<Layer>, process: &Value) -> Self {
        let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": process,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let blobs: Vec<Value> = layers
            .iter()
            .map(|layer| json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.blob.len()}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": Digest::of(&config), "size": config.len()},
            "layers": blobs,
        });
        Self { layers, config, manifest: manifest.to_string().into_bytes() }
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    pub fn digest(&self) -> String {
        Digest::of(&self.manifest).to_string()
    }

    /// Blobs by digest.
    pub fn blobs(&self) -> Vec<(Digest, Vec<u8>)> {
        let layers = self.layers.iter().map(|layer| (layer.digest.clone(), layer.blob.clone()));
        layers.chain([(Digest::of(&self.config), self.config.clone())]).collect()
    }

    /// An index with this image for this machine and another entry that is not.
    pub fn index(&self) -> Vec<u8> {
        let entry = |digest: String, size: usize, architecture: &str| json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": architecture}});
        let other = Self::new(Vec::new());
        let manifests =
            [entry(other.digest(), other.manifest.len(), "s390x"), entry(self.digest(), self.manifest.len(), "amd64")];
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string().into_bytes()
    }

    /// Pushes to a registry that asks for nothing.
    pub async fn push(&self, registry: &str, repository: &str, tag: &str) {
        let client = client();
        for (digest, blob) in self.blobs() {
            push_blob(&client, registry, repository, &digest, blob).await;
        }
        push_manifest(&client, registry, repository, tag, OCI_MANIFEST, self.manifest.clone()).await;
    }

    /// Pushes the image and an index under the tag.
    pub async fn push_index(&self, registry: &str, repository: &str, tag: &str) -> String {
        self.push(registry, repository, &self.digest()).await;
        // Registries take an index only if they have all that it lists.
        let other = Self::new(Vec::new());
        push_blob(&client(), registry, repository, &Digest::of(&other.config), other.config.clone()).await;
        push_manifest(&client(), registry, repository, &other.digest(), OCI_MANIFEST, other.manifest).await;
        let index = self.index();
        let digest = Digest::of(&index).to_string();
        push_manifest(&client(), registry, repository, tag, OCI_INDEX, index).await;
        digest
    }
}

pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

pub async fn push_blob(client: &Client, registry: &str, repository: &str, digest: &Digest, blob: Vec<u8>) {
    let base = Url::parse(&format!("http://{registry}/v2/{repository}/")).unwrap();
    let begun = client.post(base.join("blobs/uploads/").unwrap()).send().await.unwrap().error_for_status().unwrap();
    let location = begun.headers()["location"].to_str().unwrap();
    let mut upload = base.join(location).unwrap();
    upload.query_pairs_mut().append_pair("digest", &digest.to_string());
    client.put(upload).body(blob).send().await.unwrap().error_for_status().unwrap();
}

pub async fn push_manifest(
    client: &Client,
    registry: &str,
    repository: &str,
    tag: &str,
    media_type: &str,
    bytes: Vec<u8>,
) {
    let url = format!("http://{registry}/v2/{repository}/manifests/{tag}");
    let request = client.put(url).header(CONTENT_TYPE, media_type).body(bytes);
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{} {}", response.status(), response.text().await.unwrap());
}

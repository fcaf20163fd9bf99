//! Images in memory: layers, a configuration, a manifest.

use std::io::Write;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Tree, busybox};

/// Media type of a manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a configuration.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// `sha256:…` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer as it is in a registry.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The blob.
    pub blob: Bytes,
    /// What the manifest says of the blob.
    pub digest: String,
    /// What the configuration says of the archive.
    pub diff_id: String,
    media_type: String,
}

impl Layer {
    /// A layer of these files, compressed with gzip.
    pub fn gzip(tree: Tree) -> Self {
        let archive = tree.bytes();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&archive).expect("compress");
        Self::new(&archive, encoder.finish().expect("compress"), "+gzip")
    }

    /// The same, compressed with zstd.
    pub fn zstd(tree: Tree) -> Self {
        let archive = tree.bytes();
        let blob = zstd::encode_all(archive.as_slice(), 1).expect("compress");
        Self::new(&archive, blob, "+zstd")
    }

    /// The same, not compressed.
    pub fn plain(tree: Tree) -> Self {
        let archive = tree.bytes();
        Self::new(&archive, archive.clone(), "")
    }

    fn new(archive: &[u8], blob: Vec<u8>, suffix: &str) -> Self {
        Self {
            digest: digest(&blob),
            diff_id: digest(archive),
            media_type: format!("{TAR}{suffix}"),
            blob: blob.into(),
        }
    }
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// From the lowest to the highest.
    pub layers: Vec<Layer>,
    /// The image's configuration; what it says of the root filesystem is added.
    pub config: Value,
}

impl Image {
    /// An image of these layers, to be run with a shell.
    pub fn new(layers: Vec<Layer>) -> Self {
        let config = json!({"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["/bin/sh"], "WorkingDir": "/"});
        Self { layers, config }
    }

    /// Two layers: busybox, and a file on top that replaces one of the first layer, with a whiteout.
    pub fn busybox() -> Self {
        let first = Layer::gzip(busybox().file("etc/motd", 0o644, "first\n").file("etc/gone", 0o644, "first"));
        let second = Layer::gzip(Tree::default().file("etc/motd", 0o644, "second\n").file("etc/.wh.gone", 0o644, ""));
        Self::new(vec![first, second])
    }

    /// The same with another configuration, and so with another ID.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.config[key] = value.into();
        self
    }

    /// The bytes of the configuration. Their digest is the image's ID.
    pub fn config_blob(&self) -> Bytes {
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let whole = json!({
            "architecture": architecture, "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        serde_json::to_vec(&whole).expect("JSON").into()
    }

    /// The image's ID.
    pub fn id(&self) -> String {
        digest(&self.config_blob())
    }

    /// The bytes of the manifest.
    pub fn manifest(&self) -> Bytes {
        let config = self.config_blob();
        let layers = self
            .layers
            .iter()
            .map(|layer| json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.blob.len()}));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(&config), "size": config.len()},
            "layers": layers.collect::<Vec<_>>(),
        });
        serde_json::to_vec(&manifest).expect("JSON").into()
    }
}

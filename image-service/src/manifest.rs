//! Manifests, indexes and image configurations: parsing only. The raw bytes are what is stored and hashed.
//!
//! Docker's schema 2 and OCI manifests differ in media types only. Fields may be `null`, as old builders write them.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::{digest::Digest, platform::Platform};

/// What is wrong with a manifest, an index or a configuration.
#[derive(Debug, Error)]
pub(crate) enum ManifestError {
    #[error("it is not valid JSON for an image manifest")]
    Json(#[from] serde_json::Error),
    #[error(
        "it is a manifest of the withdrawn schema 1: push the image again with a current builder, or convert it with \
         `skopeo copy --format v2s2`"
    )]
    Schema1,
    #[error("it has both layers and manifests, so that its kind is open to doubt")]
    Ambiguous,
    #[error("it has neither layers nor manifests (media type {0:?})")]
    Unknown(String),
    #[error("it is an artifact of type {0:?}, not an image")]
    Artifact(String),
    #[error("the layer {digest} has the media type {media_type:?}, which cannot be unpacked")]
    LayerType { digest: Digest, media_type: String },
    #[error("it has {0} layers; the limit is {1}")]
    TooManyLayers(usize, usize),
    #[error("it offers no image for {wanted}, only for {offered}")]
    Platform { wanted: String, offered: String },
    #[error("the configuration lists {diff_ids} layers and the manifest {layers}")]
    LayerCount { diff_ids: usize, layers: usize },
    #[error("the image is for {0}, not for {1}")]
    OperatingSystem(String, String),
}

/// A reference to a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: Option<String>,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// One image.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// What a registry can answer with.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde_json::Value>,
}

/// The third is what Docker 1.10 wrote; such images are still about. An absent type is one of them.
const CONFIG_TYPES: [&str; 4] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "",
];

impl Document {
    /// Reads what a registry sent. `content_type` is the header of its answer, for messages.
    pub(crate) fn parse(bytes: &[u8], content_type: &str, max_layers: usize) -> Result<Self, ManifestError> {
        let raw: Raw = serde_json::from_slice(bytes)?;
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        let media_type = raw.media_type.as_deref().unwrap_or(content_type);
        match (raw.config, raw.layers, raw.manifests) {
            (None, None, Some(manifests)) => Ok(Self::Index(manifests)),
            (Some(config), layers, None) => {
                let layers = layers.unwrap_or_default();
                let config_type = config.media_type.as_deref().unwrap_or_default();
                if !CONFIG_TYPES.contains(&config_type) {
                    return Err(ManifestError::Artifact(raw.artifact_type.unwrap_or_else(|| config_type.to_owned())));
                }
                if layers.len() > max_layers {
                    return Err(ManifestError::TooManyLayers(layers.len(), max_layers));
                }
                if let Some(layer) = layers.iter().find(|layer| !is_layer_type(layer)) {
                    let media_type = layer.media_type.clone().unwrap_or_default();
                    return Err(ManifestError::LayerType { digest: layer.digest.clone(), media_type });
                }
                Ok(Self::Image(Manifest { config, layers }))
            }
            (None, None, None) => Err(ManifestError::Unknown(media_type.to_owned())),
            _ => Err(ManifestError::Ambiguous),
        }
    }
}

/// What a document says of its own type; what the registry said of it where it says nothing.
pub(crate) fn media_type(bytes: &[u8], content_type: &str) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: String,
    }
    let own = serde_json::from_slice::<Typed>(bytes).ok().map(|typed| typed.media_type);
    own.unwrap_or_else(|| content_type.split(';').next().unwrap_or_default().trim().to_owned())
}

/// Whether it is some form of tar archive. Which compression it has is seen from its first bytes: media types lie.
fn is_layer_type(layer: &Descriptor) -> bool {
    let Some(media_type) = &layer.media_type else { return true };
    let base = media_type.split('+').next().unwrap_or_default();
    let compression = media_type.split_once('+').map(|(_, compression)| compression);
    let known = matches!(
        base,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    );
    known && matches!(compression, None | Some("gzip" | "zstd"))
}

/// An image's configuration.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub created: Option<String>,
    #[serde(default)]
    pub config: Option<ProcessConfig>,
    pub rootfs: RootFs,
}

/// The layers of a configuration, the lowest first.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub diff_ids: Option<Vec<Digest>>,
}

/// How containers of the image run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ProcessConfig {
    pub user: Option<String>,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub stop_signal: Option<String>,
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    pub labels: Option<BTreeMap<String, String>>,
}

impl ConfigFile {
    /// Reads a configuration and holds it against the manifest that named it.
    pub(crate) fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, ManifestError> {
        let config: Self = serde_json::from_slice(bytes)?;
        let diff_ids = config.diff_ids().len();
        if diff_ids != manifest.layers.len() {
            return Err(ManifestError::LayerCount { diff_ids, layers: manifest.layers.len() });
        }
        if !config.os.is_empty() && config.os != "linux" {
            return Err(ManifestError::OperatingSystem(config.os, "linux".into()));
        }
        Ok(config)
    }

    pub(crate) fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

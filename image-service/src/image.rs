//! Images as callers see them.

use std::collections::BTreeMap;

use serde::Serialize;
use tripod_engine::ImageConfig;

use crate::{
    catalog::{ImageRecord, State},
    reference::Reference,
};

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// `registry/repository:tag`, every tag that points to it now.
    pub repo_tags: Vec<String>,
    /// `registry/repository@digest`, one for each repository that it was pulled from; the digest is the one that the tag
    /// had, of an index if there was one.
    pub repo_digests: Vec<String>,
    /// Bytes of its unpacked layers. containerd gives the compressed size here, CRI-O the unpacked one; kubelet adds
    /// these numbers up when it frees disk space, and unpacked layers are what the disk holds: nothing compressed is
    /// kept.
    pub size: u64,
    /// Time of creation as the image gives it, in RFC 3339.
    pub created: Option<String>,
    /// User of the image, if it names one.
    pub user: Option<ImageUser>,
    /// What containers inherit.
    pub config: ImageConfig,
    /// Paths that the image declares as volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Kubelet's garbage collection leaves it alone.
    pub pinned: bool,
    /// Diff IDs, the lowest layer first.
    pub layers: Vec<String>,
}

impl Image {
    pub(crate) fn new(record: &ImageRecord, state: &State, pinned: &[String]) -> Self {
        let (repo_digests, repo_tags): (Vec<String>, Vec<String>) =
            state.names_of(&record.id).cloned().partition(|name| name.contains('@'));
        let pinned = repo_tags.iter().chain(&repo_digests).any(|name| is_pinned(name, pinned));
        Self {
            id: record.id.to_string(),
            pinned,
            repo_tags,
            repo_digests,
            size: record.size,
            created: record.created.clone(),
            user: ImageUser::parse(&record.config.user),
            config: record.config.clone(),
            volumes: record.volumes.clone(),
            labels: record.labels.clone(),
            layers: record.layers.iter().map(ToString::to_string).collect(),
        }
    }

    /// A repository digest if there is one, else the ID: what a container's status gives as its image.
    pub fn reference(&self) -> &str {
        self.repo_digests.first().unwrap_or(&self.id)
    }
}

/// User of an image: CRI wants a number or a name, without the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ImageUser {
    /// A number.
    Uid(i64),
    /// A name, to be looked up in the image.
    Name(String),
}

impl ImageUser {
    fn parse(user: &str) -> Option<Self> {
        let user = user.split(':').next().unwrap_or_default();
        // Rust's own parser would take a sign as well.
        match user.parse::<u32>().ok().filter(|_| user.bytes().all(|byte| byte.is_ascii_digit())) {
            _ if user.is_empty() => None,
            Some(uid) => Some(Self::Uid(uid.into())),
            None => Some(Self::Name(user.to_owned())),
        }
    }
}

/// Whether a full name is one of those in the configuration, which may be short or end in a `*`.
fn is_pinned(name: &str, pinned: &[String]) -> bool {
    pinned.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern.parse::<Reference>().is_ok_and(|reference| reference.key() == name),
    })
}

#[cfg(test)]
mod tests;

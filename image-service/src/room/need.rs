//! How much a pull needs at least: what is certain before a byte of it is here, so that nothing is refused that would fit.
//!
//! Manifests tell the bytes of blobs as they travel. Unpacked they are hardly ever fewer, mostly two to four times as
//! many, but nothing says so beforehand, and files that the store has already take nothing at all.

use std::collections::BTreeMap;

use crate::{digest::Digest, manifest::Descriptor};

/// How the bytes of a blob come to lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// An archive in gzip or zstd: what a compression has left nobody gets smaller, but a better compression.
    Compressed,
    /// An archive as it is, of which headers and padding become no files.
    Archive,
    /// Files, byte for byte.
    Files,
}

impl Form {
    /// By what a manifest says of a layer. Its first bytes decide in the end, when they are here.
    pub(crate) fn of(blob: &Descriptor) -> Self {
        let compressed = |media_type: &str| media_type.ends_with("gzip") || media_type.ends_with("zstd");
        if blob.media_type.as_deref().is_some_and(compressed) { Self::Compressed } else { Self::Archive }
    }

    /// What so many bytes take on disk at least. `compresses` says that the filesystem may compress.
    fn least(self, bytes: u64, compresses: bool) -> u64 {
        match (self, compresses) {
            (Self::Compressed | Self::Files, false) => bytes,
            (Self::Archive, false) | (Self::Compressed, true) => bytes / 2,
            (Self::Archive | Self::Files, true) => 0,
        }
    }
}

/// What is still to come of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    pub blob: Digest,
    pub bytes: u64,
    pub form: Form,
}

/// What blobs take at least, those that several pulls want counted once. Of each as much as `linked` bytes may be files
/// that the store has already.
pub(crate) fn least(left: &[Left], compresses: bool, linked: u64) -> u64 {
    let mut blobs: BTreeMap<&Digest, u64> = BTreeMap::new();
    for Left { blob, bytes, form } in left {
        let least = form.least(*bytes, compresses).saturating_sub(linked);
        // Whoever has more of it here has it for all.
        blobs.entry(blob).and_modify(|known| *known = least.min(*known)).or_insert(least);
    }
    blobs.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

#[cfg(test)]
mod tests;

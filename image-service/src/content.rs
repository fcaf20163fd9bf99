//! Manifests, indexes and configurations, byte for byte as the registry sent them: `content/blobs/ALGORITHM/HEX`.
//!
//! Files are not synced one by one. After a boot the catalog checks those that images need.

use std::{io, path::PathBuf};

use crate::{
    digest::Digest,
    layout::{Layout, write_whole},
};

fn path(layout: &Layout, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    let (algorithm, hex) = name.split_once(':').unwrap_or(("sha256", digest.hex()));
    layout.blobs().join(algorithm).join(hex)
}

/// A blob, if it is there and is what it should be.
pub(crate) fn read(layout: &Layout, digest: &Digest) -> Option<Vec<u8>> {
    std::fs::read(path(layout, digest)).ok().filter(|bytes| digest.matches(bytes))
}

/// How a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobState {
    Good,
    Missing,
    /// Other bytes than those that its digest is of.
    Wrong,
}

pub(crate) fn state(layout: &Layout, digest: &Digest) -> BlobState {
    match read(layout, digest) {
        Some(_) => BlobState::Good,
        None if path(layout, digest).exists() => BlobState::Wrong,
        None => BlobState::Missing,
    }
}

/// Stores bytes that have this digest, unless they are there already.
pub(crate) fn write(layout: &Layout, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
    let path = path(layout, digest);
    if read(layout, digest).is_some() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    write_whole(&path, bytes, &layout.staging())
}

/// Deletes a blob, unless it turns out to be needed after all: it is moved away first, so that whoever needs it from
/// then on sees that it is gone, and moved back if somebody had begun to need it before.
pub(crate) fn remove(layout: &Layout, digest: &Digest, is_needed: impl FnOnce() -> bool) -> io::Result<()> {
    let (path, aside) = (path(layout, digest), layout.staging().join(crate::trash::unique()));
    match std::fs::rename(&path, &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) if is_needed() => std::fs::rename(aside, path),
        Ok(()) => std::fs::remove_file(aside),
        moved => moved,
    }
}

/// Every blob there is, with its bytes.
pub(crate) fn list(layout: &Layout) -> io::Result<Vec<(Digest, u64)>> {
    let mut found = Vec::new();
    for algorithm in std::fs::read_dir(layout.blobs())? {
        let algorithm = algorithm?;
        for blob in std::fs::read_dir(algorithm.path())? {
            let blob = blob?;
            let name = format!("{}:{}", algorithm.file_name().display(), blob.file_name().display());
            if let (Ok(digest), Ok(metadata)) = (name.parse(), blob.metadata()) {
                found.push((digest, metadata.len()));
            }
        }
    }
    Ok(found)
}

//! Where things are below the root folder.

use std::{
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::digest::Digest;

/// Paths below the root folder. Everything is on one filesystem, so that renames work.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn folders(&self) -> [PathBuf; 8] {
        [
            self.blobs(),
            self.layers(),
            self.objects(),
            self.containers(),
            self.staging(),
            self.retired(),
            self.trash(),
            self.empty(),
        ]
    }

    /// Makes the folders. Nobody but root may look: layers hold programs with the set-user-ID bit.
    pub(crate) fn create(&self) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        self.folders().iter().try_for_each(|folder| builder.create(folder))
    }

    /// A folder that nothing can be renamed or linked to from the others: it is on another filesystem, another subvolume
    /// of a Btrfs, or mounted by itself.
    pub(crate) fn apart(&self) -> io::Result<Option<PathBuf>> {
        // Before Linux 5.8 the number of the mount is 0 for all.
        let ground = |path: &Path| {
            statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)
                .map(|found| (found.stx_dev_major, found.stx_dev_minor, found.stx_mnt_id))
        };
        let root = ground(&self.root)?;
        for folder in self.folders() {
            if ground(&folder)? != root {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("images.redb")
    }

    /// Manifests, indexes and configurations.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("content/blobs")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// A layer with its record and its `fs`. Digests of different algorithms have different lengths.
    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    /// Files that layers have in common.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Layers that were replaced while containers have them mounted.
    pub(crate) fn retired(&self) -> PathBuf {
        self.root.join("retired")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// The lower layer of images that have none.
    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }
}

/// Writes a file so that it is there whole or not at all, as far as other processes can see.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], staging: &Path) -> io::Result<()> {
    let temporary = staging.join(crate::trash::unique());
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

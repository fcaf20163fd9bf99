//! Unpacked layers on disk: `layers/HEX/fs`, what is known of it in `layers/HEX/layer.json`, what is left of its archive
//! in `layers/HEX/skeleton.zst`, and the record of its files in `layers/HEX/files`.
//!
//! A layer is moved into place when it is complete, but not synced. Its record carries the boot and the mount under which
//! it was unpacked until a sync is recorded: the same boot trusts it, a later one only without that mark, because after a
//! power failure files may be empty that were written. In the same boot, but under another mount, a layer is read and
//! held against its record first: a disk that failed and came back has lost what was not synced, too.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, RenameFlags, StatxFlags, renameat_with, statx};
use serde::{Deserialize, Serialize};
use tripod_engine::ContainerId;

use crate::{
    check,
    digest::Digest,
    layout::{Layout, write_whole},
    objects::Objects,
    record,
    trash::Trash,
    unpack::Unpacked,
};

const RECORD: &str = "layer.json";
/// The record of its files.
pub(crate) const FILES: &str = "files";
const VERSION: u32 = 1;

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    version: u32,
    pub diff_id: Digest,
    #[serde(flatten)]
    pub unpacked: Unpacked,
    /// The [`life`] of the files that it was unpacked to; absent once it is known to be on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsynced_since_boot: Option<String>,
}

impl Layer {
    pub(crate) fn new(diff_id: Digest, unpacked: Unpacked, boot: &str) -> Self {
        Self { version: VERSION, diff_id, unpacked, unsynced_since_boot: Some(boot.to_owned()) }
    }

    /// Whether a sync of the disk is to be recorded for it.
    pub(crate) fn waits_for_sync(&self) -> bool {
        self.unsynced_since_boot.as_ref().is_some_and(|life| !life.ends_with(FAILED))
    }

    /// The same when it is known to be on disk.
    pub(crate) fn synced(&self) -> Self {
        Self { unsynced_since_boot: None, ..self.clone() }
    }

    /// The same when the disk has failed to take what may be a part of it: no later sync says otherwise.
    pub(crate) fn doubted(&self) -> Self {
        let life = self.unsynced_since_boot.as_deref().unwrap_or_default();
        let life = life.strip_suffix(FAILED).unwrap_or(life).to_owned();
        Self { unsynced_since_boot: Some(life + FAILED), ..self.clone() }
    }

    fn write(&self, folder: &Path, staging: &Path) -> io::Result<()> {
        write_whole(&folder.join(RECORD), &serde_json::to_vec(self)?, staging)
    }
}

/// Between boot and mount in a [`life`].
const MOUNT: &str = " mount ";
/// Behind a [`life`] in which a sync of the disk has failed.
const FAILED: &str = " failed";

/// How long files live that are not synced: the running kernel's boot ID, and the number of the folder's mount, where the
/// kernel (Linux 6.8) has one that it never gives again.
pub(crate) fn life(folder: &Path) -> io::Result<String> {
    // STATX_MNT_ID_UNIQUE, which rustix does not know.
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let found = statx(CWD, folder, AtFlags::empty(), UNIQUE)?;
    let mount = (found.stx_mask & UNIQUE.bits() != 0).then(|| format!("{MOUNT}{}", found.stx_mnt_id));
    Ok(boot.trim().to_owned() + &mount.unwrap_or_default())
}

/// Whether files are as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Whole,
    /// Only if they turn out to be.
    Doubtful,
    Lost,
}

/// What may be thought of files that were written in one [`life`], in another.
fn trust(written: Option<&str>, now: &str) -> Trust {
    let boot = |life: &str| life.strip_suffix(FAILED).unwrap_or(life).split(MOUNT).next().map(str::to_owned);
    match written {
        None => Trust::Whole,
        Some(written) if written == now && now.contains(MOUNT) => Trust::Whole,
        Some(written) if boot(written) == boot(now) => Trust::Doubtful,
        Some(_) => Trust::Lost,
    }
}

/// A layer that is being unpacked. What is left of it goes to the trash.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    trash: Trash,
}

impl Staging {
    pub(crate) fn new(layout: &Layout, trash: &Trash) -> io::Result<Self> {
        let staging = Self { path: layout.staging().join(crate::trash::unique()), trash: trash.clone() };
        std::fs::create_dir(&staging.path)?;
        std::fs::create_dir(staging.fs())?;
        std::fs::create_dir(staging.discard())?;
        Ok(staging)
    }

    /// The future layer's files.
    pub(crate) fn fs(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// The future layer's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.path
    }

    /// What later entries of the same archive replaced.
    pub(crate) fn discard(&self) -> PathBuf {
        self.path.join("discard")
    }

    /// Writes the record of its files, which a check will hold them against.
    pub(crate) fn record(&self, unpacked: &mut Unpacked, objects: &Objects) -> io::Result<()> {
        record::write(&self.fs(), &self.path.join(FILES), &std::mem::take(&mut unpacked.contents), Some(objects))
    }

    /// Moves it into place. Something that is there already is unknown to the catalog, so it is rubbish.
    pub(crate) fn install(self, layout: &Layout, layer: &Layer) -> io::Result<()> {
        self.trash.take(&self.discard())?;
        layer.write(&self.path, &layout.staging())?;
        let target = layout.layer(&layer.diff_id);
        self.trash.take(&target)?;
        std::fs::rename(&self.path, target)
    }

    /// Puts it in place of a layer that is there, in one step. The old files are kept aside while one of `holders`, which
    /// have them mounted, is left.
    pub(crate) fn replace(self, layout: &Layout, layer: &Layer, holders: &BTreeSet<ContainerId>) -> io::Result<()> {
        self.trash.take(&self.discard())?;
        layer.write(&self.path, &layout.staging())?;
        let target = layout.layer(&layer.diff_id);
        if !target.exists() {
            return std::fs::rename(&self.path, target);
        }
        let _alone = self.trash.retiring();
        // The list first: after a crash at any point the old files are either in place or on it.
        let aside = layout.retired().join(crate::trash::unique());
        write_whole(&aside.with_extension("json"), &serde_json::to_vec(holders)?, &layout.staging())?;
        std::fs::rename(&self.path, &aside)?;
        Ok(renameat_with(CWD, &aside, CWD, &target, RenameFlags::EXCHANGE)?)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = self.trash.take(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a staging folder stays until the next start");
        }
    }
}

/// Records what became of a layer's sync.
pub(crate) fn record_sync(layout: &Layout, layer: &Layer) -> io::Result<()> {
    layer.write(&layout.layer(&layer.diff_id), &layout.staging())
}

/// All layers that can be trusted in this [`life`]. The others go to the trash.
pub(crate) fn load(layout: &Layout, trash: &Trash, life: &str) -> io::Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for entry in std::fs::read_dir(layout.layers())? {
        let path = entry?.path();
        let record = std::fs::read(path.join(RECORD)).ok();
        let layer: Option<Layer> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let trusted = layer.filter(|layer| {
            let there = layer.version == VERSION && layout.layer(&layer.diff_id) == path && path.join("fs").is_dir();
            there
                && match trust(layer.unsynced_since_boot.as_deref(), life) {
                    Trust::Whole => true,
                    Trust::Doubtful => check::is_whole(&path, &layer.diff_id),
                    Trust::Lost => false,
                }
        });
        match trusted {
            Some(layer) => layers.push(layer),
            None => {
                tracing::info!(path = %path.display(), "a layer that was never synced, or is broken, is discarded");
                trash.take(&path)?;
            }
        }
    }
    Ok(layers)
}

#[cfg(test)]
mod tests;

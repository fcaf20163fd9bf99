//! Room on the disk: garbage goes at once when it is short, pulls that cannot fit are refused, and unpacking stops before
//! the disk is full.
//!
//! Images that have a name are the kubelet's to collect, which has its own limits, and those come first
//! (`imageGCHighThresholdPercent`); here goes only what nothing refers to.

mod admission;
mod floor;
mod need;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::{statfs, statvfs};
use tripod_engine::{Error, Result};

pub(crate) use admission::{Admissions, admit};
pub(crate) use floor::{Floor, Watch};
pub(crate) use need::{Form, Left};

use crate::{fetch::blocking, gc, service::Inner};

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often garbage is collected while the disk stays short.
const AGAIN: Duration = Duration::from_secs(60);
/// Filesystems that may compress files: Btrfs, ZFS, F2FS, bcachefs.
const COMPRESSING: [u64; 4] = [0x9123_683e, 0x2fc1_2fc1, 0xf2f5_2010, 0xca45_1a4e];

/// Room on a filesystem, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub total: u64,
    pub free: u64,
    /// Files may take less than their length.
    pub compresses: bool,
}

impl Room {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let stat = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        #[allow(clippy::useless_conversion, reason = "its type differs between architectures")]
        let compresses = u64::try_from(statfs(path)?.f_type).is_ok_and(|kind| COMPRESSING.contains(&kind));
        Ok(Self { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail), compresses })
    }

    /// How much stays free: as the setting says, but on a small filesystem no more than a twentieth.
    pub(crate) fn floor(self, setting: u64) -> u64 {
        setting.min(self.total / 20)
    }
}

async fn look(inner: &Arc<Inner>) -> Result<Room> {
    let root = inner.fetcher.layout.root().to_owned();
    let looked = blocking(move || Room::of(&root)).await?;
    looked.map_err(|error| Error::io("cannot see how full the disk is", error))
}

/// Deletes all that nothing refers to: layers of pulls that failed, what removed images have left, the trash.
async fn reclaim(inner: &Arc<Inner>, why: &str) -> Result<()> {
    let before = look(inner).await?;
    let partial = std::mem::take(&mut inner.fetcher.catalog.state().kept).len();
    gc::sweep(inner).await;
    let after = look(inner).await?;
    tracing::warn!(
        why,
        free_before = before.free,
        free = after.free,
        total = before.total,
        layers_of_failed_pulls = partial,
        "the disk is short of room: what nothing refers to was deleted, images with names stay"
    );
    Ok(())
}

/// Looks at the disk now and then, for as long as the service is in use.
pub(crate) fn start(inner: &Arc<Inner>) {
    if inner.config.min_free_bytes == 0 {
        return;
    }
    let weak = Arc::downgrade(inner);
    tokio::spawn(async move {
        let mut short_since: Option<Instant> = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(inner) = weak.upgrade() else { return };
            let room = match look(&inner).await {
                Ok(room) => room,
                Err(error) => {
                    tracing::warn!(%error, "the disk cannot be watched");
                    return;
                }
            };
            let short = room.free < 2 * room.floor(inner.config.min_free_bytes);
            match short_since {
                _ if !short => {
                    if short_since.take().is_some() {
                        tracing::info!(free = room.free, "the disk has room again");
                    }
                }
                Some(since) if since.elapsed() < AGAIN => {}
                _ => {
                    short_since = Some(Instant::now());
                    if let Err(error) = reclaim(&inner, "less than twice image.min_free_bytes is free").await {
                        tracing::warn!(%error, "nothing could be deleted");
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_stays_free_on_little() {
        let room = |total| Room { total, free: 0, compresses: false };
        assert_eq!(room(100 << 30).floor(2 << 30), 2 << 30);
        assert_eq!(room(20 << 20).floor(2 << 30), 1 << 20);
        assert_eq!(room(20 << 20).floor(0), 0);
        let here = Room::of(Path::new("/proc/self/root")).unwrap();
        assert!(here.total >= here.free && here.total > 0);
    }
}

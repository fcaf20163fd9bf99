//! Room on the disk: garbage goes at once when it is short, and pulls are refused before it is full.
//!
//! Images that have a name are the kubelet's to collect, which has its own limits, and those come first
//! (`imageGCHighThresholdPercent`); here goes only what nothing refers to.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::statvfs;
use tripod_engine::{Error, Kind, Result};

use crate::{fetch::blocking, gc, service::Inner};

/// How often the disk is looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often garbage is collected while the disk stays short.
const AGAIN: Duration = Duration::from_secs(60);

/// Room on a filesystem, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub total: u64,
    pub free: u64,
}

impl Room {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let stat = statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }

    /// How much stays free: as the setting says, but on a small filesystem no more than a twentieth.
    pub(crate) fn floor(self, setting: u64) -> u64 {
        setting.min(self.total / 20)
    }
}

/// Sees to it that `bytes` more fit, or says what to do.
pub(crate) async fn make(inner: &Arc<Inner>, bytes: u64) -> Result<()> {
    let fits = |room: Room| room.free >= bytes.saturating_add(room.floor(inner.config.min_free_bytes));
    if inner.config.min_free_bytes == 0 || fits(look(inner).await?) {
        return Ok(());
    }
    reclaim(inner, "there is no room for a pull").await?;
    let room = look(inner).await?;
    if fits(room) {
        return Ok(());
    }
    let message = format!(
        "No space left for images: {} bytes are to be fetched, {} of {} are free on the filesystem of {}, and {} of them \
         stay free by the setting image.min_free_bytes: remove containers and images (`tripod image df`, `tripod image \
         prune --all`), or lower the setting",
        bytes,
        room.free,
        room.total,
        inner.fetcher.layout.root().display(),
        room.floor(inner.config.min_free_bytes)
    );
    Err(Error::new(Kind::ResourceExhausted, message))
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
        let room = |total| Room { total, free: 0 };
        assert_eq!(room(100 << 30).floor(2 << 30), 2 << 30);
        assert_eq!(room(20 << 20).floor(2 << 30), 1 << 20);
        assert_eq!(room(20 << 20).floor(0), 0);
        let here = Room::of(Path::new("/proc/self/root")).unwrap();
        assert!(here.total >= here.free && here.total > 0);
    }
}

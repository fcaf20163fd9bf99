//! How much of which filesystem images and containers use.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::Serialize;
use tripod_engine::{ContainerId, Error, Result, usage::WritableLayer};

use crate::{content, fetch::blocking, service::ImageService};

/// How old a count of a writable layer may be.
pub(crate) const FRESH: Duration = Duration::from_secs(10);

/// Use of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FsUsage {
    /// Nanoseconds since the epoch.
    pub timestamp: i64,
    /// Where the filesystem is mounted.
    pub mount_point: PathBuf,
    /// Bytes that are used on it for this purpose.
    pub used_bytes: u64,
    /// Inodes that are used on it for this purpose.
    pub used_inodes: u64,
}

/// Use of the filesystems of images and of containers' writable layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FsInfo {
    /// Images.
    pub images: FsUsage,
    /// Writable layers.
    pub containers: FsUsage,
}

impl ImageService {
    /// What images and writable layers use, and where.
    pub async fn fs_info(&self) -> Result<FsInfo> {
        let (layout, objects) = (self.inner.fetcher.layout.clone(), Arc::clone(&self.inner.fetcher.objects));
        let found = blocking(move || {
            let images = mount_point(&layout.layers())?;
            let containers = mount_point(&layout.containers())?;
            let blobs = content::list(&layout)?;
            Ok::<_, io::Error>((images, containers, blobs, objects.saved()?))
        });
        let (images, containers, blobs, saved) =
            found.await?.map_err(|error| Error::io("cannot find the filesystem of the images", error))?;
        let (mut bytes, mut inodes) = (blobs.iter().map(|(_, size)| size).sum::<u64>(), blobs.len() as u64);
        let leases: Vec<ContainerId> = {
            let state = self.inner.fetcher.catalog.state();
            bytes += state.layers.values().map(|layer| layer.unpacked.disk_bytes).sum::<u64>();
            inodes += state.layers.values().map(|layer| layer.unpacked.inodes).sum::<u64>();
            // A layer that went is counted for a moment by its links.
            bytes = bytes.saturating_sub(saved.bytes);
            inodes = inodes.saturating_sub(saved.inodes);
            state.leases.keys().cloned().collect()
        };
        let mut written = WritableLayer::default();
        for container in leases {
            // One that is going away, or only holds image volumes, has none.
            let Ok(usage) = self.inner.used(&container, FRESH).await else { continue };
            written.bytes += usage.held.bytes;
            written.inodes += usage.held.inodes;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let timestamp = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        Ok(FsInfo {
            images: FsUsage { timestamp, mount_point: images, used_bytes: bytes, used_inodes: inodes },
            containers: FsUsage {
                timestamp,
                mount_point: containers,
                used_bytes: written.bytes,
                used_inodes: written.inodes,
            },
        })
    }
}

/// Where the filesystem of a path is mounted.
fn mount_point(path: &Path) -> io::Result<PathBuf> {
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let line = table.lines().find(|line| line.split(' ').next().and_then(|number| number.parse().ok()) == Some(id));
    // A path outside of this process's root is in no table.
    Ok(line.and_then(|line| line.split(' ').nth(4)).map_or_else(|| path.to_owned(), unescape))
}

/// The kernel writes blanks and the like as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let octal = (bytes[index] == b'\\')
            .then(|| std::str::from_utf8(bytes.get(index + 1..index + 4)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(bytes[index]));
        index += if octal.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mount_points() {
        assert_eq!(mount_point(Path::new("/proc/self")).unwrap(), Path::new("/proc"));
        assert_eq!(unescape("/a\\040b\\\\c"), Path::new("/a b\\\\c"));
    }
}

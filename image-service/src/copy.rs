//! The `copy` provisioner: a container gets the files of its image as files of its own, for filesystems on which overlayfs
//! cannot stand. Blocks are shared with the image where the filesystem can share them.
//!
//! Below `containers/ID` are `rootfs`, one `volume-HEX` for each image that is a volume, and beside each a file `.size`
//! with what was copied, so that what the container adds can be told. A copy that is not complete has another name.

mod files;
mod merge;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::statvfs;
use serde::{Deserialize, Serialize};
use tripod_engine::{
    ContainerId, Error, Result,
    plugin::{Known, MappedIds, Provisioner, RootFs},
    usage::WritableLayer,
};
use tripod_sys::mount::{self, Attributes};

use crate::{
    containers::{Containers, Lower, copy, failed, volume_failed},
    fetch::blocking,
    overlay,
    quota::Quotas,
    service::ImageService,
    trash::Trash,
    usage,
};

/// The folder of a container's root filesystem.
pub(crate) const ROOTFS: &str = "rootfs";
/// How the names of the folders of image volumes begin.
const VOLUME: &str = "volume-";
/// How the names of the files end that tell what was copied.
const SIZE: &str = ".size";

/// Turns images into root filesystems by copying them.
#[derive(Debug)]
pub struct Copy {
    containers: Containers,
}

impl ImageService {
    /// The provisioner for filesystems on which overlayfs cannot stand.
    pub fn copy(&self) -> Copy {
        Copy { containers: Containers::new(&self.inner) }
    }
}

/// What a copy took when it was made.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Size {
    bytes: u64,
    inodes: u64,
}

impl Copy {
    /// Why pods with user namespaces cannot have images from here, if so.
    pub async fn check_user_namespaces(&self) -> io::Result<()> {
        let folder = self.containers.inner.fetcher.layout.staging();
        let tried = blocking(move || {
            let ids = tripod_sys::userns::new("0 65536 65536", "0 65536 65536")?;
            let mount = mount::clone_path(None, &folder, false)?;
            mount::map_ids(&mount, &ids, false)
        });
        let why = |error| io::Error::other(format!("map the owners of files below the root folder: {error}"));
        tried.await.map_err(io::Error::other)?.map_err(why)
    }

    /// The files of an image in a folder of the container's, as a mount that stands nowhere. They are copied once.
    async fn mounted(
        &self,
        (lower, name): (Lower, String),
        container: &ContainerId,
        ids: Option<&MappedIds>,
        read_only: bool,
    ) -> Result<OwnedFd> {
        let inner = &self.containers.inner;
        let (folder, label) = (self.containers.folder(container), self.containers.label_of(container));
        let (trash, ids) = (inner.fetcher.trash.clone(), ids.map(copy).transpose()?);
        let (service, id) = (Arc::clone(inner), container.clone());
        let target = folder.join(&name);
        let what = format!("a copy of an image for container {container}");
        let made = blocking(move || {
            lower.root_owner(ids.as_ref().map(|ids| &ids.mapping))?;
            if !read_only {
                // Of a daemon with other settings, under which the container was not started.
                trash.take(&folder.join(overlay::UPPER))?;
            }
            if !target.exists() {
                // Volumes are not what the container writes.
                let quotas = service.quotas().filter(|_| !read_only);
                let account = quotas.map(|quotas| Account { quotas, container: &id, mapped: ids.is_some() });
                fill(&lower, (&folder, &name), label.as_deref(), account, &trash)?;
            }
            shown(&target, ids.as_ref(), read_only)
        });
        made.await?.map_err(|error| {
            // What there is of it is in the trash.
            inner.sweep.notify_one();
            explained(&error, &what, &inner.fetcher.layout.containers())
        })
    }
}

/// Where the filesystem keeps account of a copy.
#[derive(Clone, Copy)]
struct Account<'a> {
    quotas: &'a Quotas,
    container: &'a ContainerId,
    mapped: bool,
}

/// Copies an image into a folder of this name, which is there when all of it is.
fn fill(
    lower: &Lower,
    (folder, name): (&Path, &str),
    label: Option<&str>,
    account: Option<Account<'_>>,
    trash: &Trash,
) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    trash.take(&new)?;
    std::fs::create_dir(&new)?;
    if let Some(Account { quotas, container, mapped }) = account {
        quotas.assign(container, &[&new], mapped)?;
    }
    let filled = files::copy(lower, &new, label).and_then(|()| {
        let told = account.and_then(|Account { quotas, container, .. }| quotas.size(container));
        let WritableLayer { bytes, inodes } = told.map_or_else(|| usage::count(&new), Ok)?;
        std::fs::write(folder.join(format!("{name}{SIZE}")), serde_json::to_vec(&Size { bytes, inodes })?)
    });
    match filled {
        Ok(()) => std::fs::rename(new, folder.join(name)),
        Err(error) => {
            trash.take(&new)?;
            Err(error)
        }
    }
}

/// A folder as a mount that stands nowhere, without the restrictions of the mount that it lies in.
fn shown(folder: &Path, ids: Option<&MappedIds>, read_only: bool) -> io::Result<OwnedFd> {
    let mounted = mount::clone_path(None, folder, false)?;
    mount::unrestrict(&mounted)?;
    if let Some(ids) = ids {
        mount::map_ids(&mounted, &ids.namespace, false)?;
    }
    if read_only {
        let attributes = Attributes { read_only: true, nosuid: true, nodev: true, noexec: false };
        mount::set(&mounted, attributes, None, false)?;
    }
    Ok(mounted)
}

fn explained(error: &io::Error, what: &str, place: &Path) -> Error {
    if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return failed(error, what);
    }
    let free = statvfs(place).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let remedy = format!(
        "cannot make {what}: the filesystem of {} is full ({free} bytes are free): remove containers or images, or use a \
         filesystem for `root` that overlayfs can stand on",
        place.display()
    );
    Error::io(remedy, error.kind())
}

/// What was copied into a folder of a container.
pub(crate) fn size(folder: &Path, name: &str) -> WritableLayer {
    let told = std::fs::read(folder.join(format!("{name}{SIZE}"))).unwrap_or_default();
    let Size { bytes, inodes } = serde_json::from_slice(&told).unwrap_or_default();
    WritableLayer { bytes, inodes }
}

/// What was copied for all image volumes of a container.
pub(crate) fn size_of_volumes(folder: &Path) -> WritableLayer {
    let mut sum = WritableLayer::default();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let volume = name.to_str().and_then(|name| name.strip_suffix(SIZE)).filter(|name| name.starts_with(VOLUME));
        if let Some(name) = volume {
            let WritableLayer { bytes, inodes } = size(folder, name);
            sum.bytes += bytes;
            sum.inodes += inodes;
        }
    }
    sum
}

#[async_trait]
impl Provisioner for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        self.containers.recover(known).await
    }

    fn label(&self, container: &ContainerId, label: &str) {
        self.containers.label(container, label);
    }

    async fn provision(&self, image: &str, container: &ContainerId, ids: Option<&MappedIds>) -> Result<RootFs> {
        let _turn = self.containers.turn(container).await;
        let (_, lower) = self.containers.lease(image, container).await?;
        self.mounted((lower, ROOTFS.to_owned()), container, ids, false).await.map(RootFs::Detached)
    }

    async fn volume(
        &self,
        image: &str,
        sub_path: &Path,
        container: &ContainerId,
        ids: Option<&MappedIds>,
    ) -> Result<OwnedFd> {
        let _turn = self.containers.turn(container).await;
        let (id, lower) = self.containers.lease(image, container).await?;
        let name = format!("{VOLUME}{}", id.hex());
        let whole = self.mounted((lower, name), container, ids, true).await?;
        if sub_path.as_os_str().is_empty() {
            return Ok(whole);
        }
        let (folder, sub): (_, PathBuf) = (self.containers.folder(container), sub_path.to_owned());
        let below = blocking(move || overlay::mount::below(&whole, &sub, &folder));
        below.await?.map_err(|error| volume_failed(&error, image, sub_path, container))
    }

    async fn usage(&self, container: &ContainerId, age: Duration) -> Result<WritableLayer> {
        self.containers.usage(container, age).await
    }

    async fn limit(&self, container: &ContainerId, bytes: u64) -> Result<bool> {
        self.containers.limit(container, bytes).await
    }

    async fn left(&self, container: &ContainerId) -> Option<u64> {
        self.containers.left(container).await
    }

    async fn destroy(&self, container: &ContainerId) -> Result<()> {
        self.containers.destroy(container).await
    }
}

#[cfg(test)]
mod tests;

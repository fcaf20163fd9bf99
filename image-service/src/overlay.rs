//! The `overlay` provisioner: an image's layers below, a container's own writable layer on top.
//!
//! Below `containers/ID` are `upper` and `work`. The mount is detached: it is visible nowhere on the host, and gone with
//! its last descriptor.

mod ids;
mod implied;
pub(crate) mod mount;
mod probe;

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{Gid, Mode, Uid, chmod, chown};
use tripod_engine::{
    ContainerId, Result, UserMapping,
    plugin::{Known, MappedIds, Provisioner, RootFs},
    usage::WritableLayer,
};

use crate::{
    containers::{Containers, Lower, copy, failed, make_folder, volume_failed},
    fetch::blocking,
    quota,
    service::ImageService,
};

/// The folder of what a container has written.
pub(crate) const UPPER: &str = "upper";

/// The folder beside it that overlayfs works in.
const WORK: &str = "work";

/// Turns images into root filesystems with overlayfs.
#[derive(Debug)]
pub struct Overlay {
    containers: Containers,
    /// How layers with mapped owners are mounted, once that is known.
    way: Arc<OnceLock<ids::Way>>,
}

impl ImageService {
    /// The provisioner that stands on this service's store.
    pub fn overlay(&self) -> Overlay {
        Overlay { containers: Containers::new(&self.inner), way: Arc::default() }
    }
}

impl Lower {
    /// Makes the folder on top of the layers, with what it must have from the start. `first` is done while it is empty.
    fn make_top(
        &self,
        path: &Path,
        mapped: Option<&Mapped>,
        first: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let new = path.with_extension("new");
        make_folder(&new)?;
        first(&new)?;
        let (uid, gid) = self.root_owner(mapped.map(|mapped| &mapped.ids))?;
        chown(&new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        chmod(&new, Mode::from(self.root.mode))?;
        let layers = mapped.map(|mapped| mapped.layers.as_slice());
        implied::restore(&self.folders, layers, &self.implied, &new)?;
        std::fs::rename(new, path)
    }

    /// The layers with the owners that a user namespace gives them.
    fn mapped(&self, ids: &MappedIds) -> io::Result<Mapped> {
        Ok(Mapped { layers: ids::mapped(&self.folders, &ids.namespace)?, ids: ids.mapping })
    }

    /// Whether the layers alone give a wrong picture.
    fn needs_top(&self) -> bool {
        self.implied.iter().any(|implied| !implied.is_empty())
    }

    /// Fails where a layer hides something that overlayfs would show.
    fn check(&self) -> io::Result<()> {
        if self.marks.iter().all(crate::unpack::Marks::is_empty) {
            return Ok(());
        }
        let text = "a layer of it was unpacked where the filesystem holds no whiteouts: remove the image and pull it again, \
                    or set image.provisioner to \"copy\"";
        Err(io::Error::other(text))
    }
}

/// The way of new kernels, until something else is known.
fn known(way: &OnceLock<ids::Way>) -> &ids::Way {
    way.get().unwrap_or(&ids::Way::Open)
}

/// Layers of which 0 belongs to the root of a user namespace, while nothing on disk is changed.
struct Mapped {
    layers: Vec<OwnedFd>,
    ids: UserMapping,
}

impl Overlay {
    /// Why pods with user namespaces cannot have images from here, if so: for want of a new kernel, or of a filesystem
    /// below that can map IDs.
    pub async fn check_user_namespaces(&self) -> io::Result<()> {
        let layout = &self.containers.inner.fetcher.layout;
        let folders = [layout.empty(), layout.staging()];
        let way = blocking(move || ids::Way::find(&folders)).await.map_err(io::Error::other)??;
        tracing::debug!(?way, "layers of pods with user namespaces");
        let _ = self.way.set(way);
        Ok(())
    }

    /// Why overlayfs cannot show images on the filesystem below, if so.
    pub(crate) async fn check(&self) -> io::Result<()> {
        let fetcher = &self.containers.inner.fetcher;
        let (staging, trash) = (fetcher.layout.staging(), fetcher.trash.clone());
        let tried = blocking(move || probe::run(&staging, &trash)).await;
        // What was made for it is in the trash.
        self.containers.inner.sweep.notify_one();
        tried.map_err(io::Error::other)?
    }
}

#[async_trait]
impl Provisioner for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        self.containers.recover(known).await
    }

    fn label(&self, container: &ContainerId, label: &str) {
        self.containers.label(container, label);
    }

    async fn provision(&self, image: &str, container: &ContainerId, ids: Option<&MappedIds>) -> Result<RootFs> {
        let containers = &self.containers;
        let _turn = containers.turn(container).await;
        let (_, lower) = containers.lease(image, container).await?;
        let fetcher = &containers.inner.fetcher;
        let (folder, empty, trash) = (containers.folder(container), fetcher.layout.empty(), fetcher.trash.clone());
        let label = containers.label_of(container);
        let ids = ids.map(copy).transpose()?;
        let (way, inner, id) = (Arc::clone(&self.way), Arc::clone(&containers.inner), container.clone());
        let mounted = blocking(move || {
            lower.check()?;
            let (upper, work) = (folder.join(UPPER), folder.join(WORK));
            // Of a daemon with other settings, under which the container was not started.
            trash.take(&folder.join(crate::copy::ROOTFS))?;
            let mapped = ids.map(|ids| lower.mapped(&ids)).transpose()?;
            // An earlier volatile mount has left a mark there that would make the kernel refuse.
            trash.take(&work)?;
            make_folder(&work)?;
            if upper.exists() {
                // Whatever the settings and the filesystem were when it was made.
                quota::like(&upper, &work)?;
            } else {
                lower.make_top(&upper, mapped.as_ref(), |new| match inner.quotas() {
                    Some(quotas) => quotas.assign(&id, &[new, &work], mapped.is_some()),
                    None => Ok(()),
                })?;
            }
            let (label, writable) = (label.as_deref(), Some((upper.as_path(), work.as_path())));
            match mapped {
                Some(mapped) if !mapped.layers.is_empty() => known(&way).overlay(&mapped.layers, Some(&folder), label),
                _ => mount::overlay(&lower.folders, &empty, writable, &folder, label),
            }
        });
        let mounted = mounted.await?;
        mounted
            .map(RootFs::Detached)
            .map_err(|error| failed(&error, &format!("the root filesystem of container {container}")))
    }

    async fn volume(
        &self,
        image: &str,
        sub_path: &Path,
        container: &ContainerId,
        ids: Option<&MappedIds>,
    ) -> Result<OwnedFd> {
        let containers = &self.containers;
        let _turn = containers.turn(container).await;
        let (id, lower) = containers.lease(image, container).await?;
        let (folder, empty) = (containers.folder(container), containers.inner.fetcher.layout.empty());
        let (sub, label) = (sub_path.to_owned(), containers.label_of(container));
        let ids = ids.map(copy).transpose()?;
        let way = Arc::clone(&self.way);
        let mounted = blocking(move || {
            lower.check()?;
            let mapped = ids.map(|ids| lower.mapped(&ids)).transpose()?;
            let top = folder.join(format!("top-{}", id.hex()));
            if lower.needs_top() && !top.exists() {
                lower.make_top(&top, mapped.as_ref(), |_| Ok(()))?;
            }
            let top = lower.needs_top().then_some(top);
            let whole = match mapped {
                None => {
                    let folders: Vec<PathBuf> = top.into_iter().chain(lower.folders).collect();
                    mount::overlay(&folders, &empty, None, &folder, label.as_deref())?
                }
                Some(mapped) => {
                    // The folder on top has the right owners as it is.
                    let mut layers: Vec<OwnedFd> = top.iter().map(|top| ids::plain(top)).collect::<io::Result<_>>()?;
                    layers.extend(mapped.layers);
                    // An overlay that nobody can write to needs two layers at least.
                    while layers.len() < 2 {
                        layers.push(ids::plain(&empty)?);
                    }
                    known(&way).overlay(&layers, None, label.as_deref())?
                }
            };
            if sub.as_os_str().is_empty() { Ok(whole) } else { mount::below(&whole, &sub, &folder) }
        });
        mounted.await?.map_err(|error| volume_failed(&error, image, sub_path, container))
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

//! The `overlay` provisioner: an image's layers below, a container's own writable layer on top.
//!
//! Below `containers/ID` are `upper`, `work` and `lease.json`, which names the layers that the container needs. The
//! mount is detached: it is visible nowhere on the host, and gone with its last descriptor.

mod ids;
mod implied;
mod mount;
pub(crate) mod usage;

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::{Gid, Mode, Uid, chmod, chown};
use tripod_engine::{
    ContainerId, Error, Kind, Result, UserMapping,
    plugin::{Known, MappedIds, Provisioner, RootFs},
    usage::WritableLayer,
};

use crate::{
    catalog::Lease,
    digest::Digest,
    fetch::blocking,
    layout::write_whole,
    service::{ImageService, Inner},
    unpack::RootAttributes,
};

/// File name of a container's lease.
pub(crate) const LEASE: &str = "lease.json";

/// Turns images into root filesystems with overlayfs.
#[derive(Debug)]
pub struct Overlay {
    inner: Arc<Inner>,
    usage: Arc<usage::Cache>,
    /// Changes of one container's folder, one after the other.
    busy: Arc<Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>>,
    /// SELinux labels of the mounts of those that have one.
    labels: Arc<Mutex<HashMap<ContainerId, String>>>,
}

impl ImageService {
    /// The provisioner that stands on this service's store.
    pub fn overlay(&self) -> Overlay {
        Overlay {
            inner: Arc::clone(&self.inner),
            usage: Arc::clone(&self.inner.usage),
            busy: Arc::default(),
            labels: Arc::default(),
        }
    }
}

/// What an image gives to a mount, the highest layer first.
struct Lower {
    folders: Vec<PathBuf>,
    /// Folders that each of them has without attributes of its own.
    implied: Vec<Vec<String>>,
    root: RootAttributes,
}

impl Lower {
    /// Makes the folder on top of the layers, with what it must have from the start.
    fn make_top(&self, path: &Path, mapped: Option<&Mapped>) -> io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        let new = path.with_extension("new");
        make_folder(&new)?;
        let (uid, gid) = match mapped {
            None => (self.root.uid, self.root.gid),
            Some(Mapped { ids, .. }) => {
                let beyond = || io::Error::other("its root directory belongs to an ID that the pod does not have");
                let mapped = ids.uids.to_host(self.root.uid).zip(ids.gids.to_host(self.root.gid));
                mapped.ok_or_else(beyond)?
            }
        };
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
        let folders = [self.inner.fetcher.layout.empty(), self.inner.fetcher.layout.staging()];
        blocking(move || ids::check(&folders)).await.map_err(io::Error::other)?
    }

    /// Waits for its turn with a container.
    async fn turn(&self, container: &ContainerId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut busy = self.busy.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            busy.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(busy.entry(container.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Takes an image's layers into a container's lease, so that they stay whatever becomes of the image.
    async fn lease(&self, spec: &str, container: &ContainerId) -> Result<(Digest, Lower)> {
        let (lease, id, lower) = {
            let mut state = self.inner.fetcher.catalog.state();
            let image = state.find(spec).and_then(|found| state.images.get(found.id()));
            let image = image.map(|image| (image.id.clone(), image.layers.clone()));
            // The image may have been removed since the container was made.
            let leased = || {
                let id = spec.parse::<Digest>().ok()?;
                let layers = state.leases.get(container)?.images.get(&id)?.clone();
                Some((id, layers))
            };
            let (id, layers) = image.or_else(leased).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("image {spec:?} is not on this node: pull it first"))
            })?;
            let lower = self.lower(&id, &layers, &state)?;
            let lease = state.leases.entry(container.clone()).or_default();
            lease.images.insert(id.clone(), layers);
            (lease.clone(), id, lower)
        };
        self.write_lease(container, lease).await?;
        Ok((id, lower))
    }

    fn lower(&self, image: &Digest, layers: &[Digest], state: &crate::catalog::State) -> Result<Lower> {
        let mut lower =
            Lower { folders: Vec::new(), implied: Vec::new(), root: RootAttributes { mode: 0o755, uid: 0, gid: 0 } };
        let mut has_root = false;
        for diff_id in layers.iter().rev() {
            let layer = state.layers.get(diff_id).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("layer {diff_id} of image {image} is missing: pull the image again"))
            })?;
            if let Some(root) = layer.unpacked.root
                && !has_root
            {
                (lower.root, has_root) = (root, true);
            }
            let folder = self.inner.fetcher.layout.layer(diff_id).join("fs");
            // The same layer twice in one mount is refused by the kernel; the higher one hides the lower.
            if !lower.folders.contains(&folder) {
                lower.folders.push(folder);
                lower.implied.push(layer.unpacked.implied.clone());
            }
            if layer.unpacked.opaque {
                break;
            }
        }
        Ok(lower)
    }

    async fn write_lease(&self, container: &ContainerId, lease: Lease) -> Result<()> {
        let folder = self.folder(container);
        let staging = self.inner.fetcher.layout.staging();
        let written = blocking(move || {
            make_folder(&folder)?;
            write_whole(&folder.join(LEASE), &serde_json::to_vec(&lease)?, &staging)
        });
        written.await?.map_err(|error| Error::io(format!("cannot record what container {container} needs"), error))
    }

    fn folder(&self, container: &ContainerId) -> PathBuf {
        self.inner.fetcher.layout.containers().join(container)
    }

    fn label_of(&self, container: &ContainerId) -> Option<String> {
        self.labels.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(container).cloned()
    }

    /// Forgets a container and moves its folder to the trash.
    async fn forget(&self, container: &ContainerId) -> Result<()> {
        let (folder, trash) = (self.folder(container), self.inner.fetcher.trash.clone());
        let taken = blocking(move || trash.take(&folder)).await?;
        taken
            .map_err(|error| Error::io(format!("cannot remove the writable layer of container {container}"), error))?;
        self.inner.fetcher.catalog.state().leases.remove(container);
        self.usage.forget(container);
        self.inner.sweep.notify_one();
        Ok(())
    }
}

#[async_trait]
impl Provisioner for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        let present: Vec<ContainerId> = self.inner.fetcher.catalog.state().leases.keys().cloned().collect();
        let mut result = Ok(());
        for container in present.into_iter().filter(|container| !known.containers.contains(container)) {
            tracing::info!(container = container.short(), "removing the writable layer of an unknown container");
            let _turn = self.turn(&container).await;
            result = result.and(self.forget(&container).await);
        }
        result
    }

    fn label(&self, container: &ContainerId, label: &str) {
        let mut labels = self.labels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        labels.insert(container.clone(), label.to_owned());
    }

    async fn provision(&self, image: &str, container: &ContainerId, ids: Option<&MappedIds>) -> Result<RootFs> {
        let _turn = self.turn(container).await;
        let (_, lower) = self.lease(image, container).await?;
        let (folder, layout, trash) =
            (self.folder(container), self.inner.fetcher.layout.clone(), self.inner.fetcher.trash.clone());
        let label = self.label_of(container);
        let ids = ids.map(copy).transpose()?;
        let mounted = blocking(move || {
            let (upper, work) = (folder.join("upper"), folder.join("work"));
            let mapped = ids.map(|ids| lower.mapped(&ids)).transpose()?;
            lower.make_top(&upper, mapped.as_ref())?;
            // An earlier volatile mount has left a mark there that would make the kernel refuse.
            trash.take(&work)?;
            make_folder(&work)?;
            let (label, writable) = (label.as_deref(), Some((upper.as_path(), work.as_path())));
            match mapped {
                Some(mapped) if !mapped.layers.is_empty() => ids::overlay(&mapped.layers, writable, label),
                _ => mount::overlay(&lower.folders, &layout.empty(), writable, &folder, label),
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
        let _turn = self.turn(container).await;
        let (id, lower) = self.lease(image, container).await?;
        let (folder, empty, sub) = (self.folder(container), self.inner.fetcher.layout.empty(), sub_path.to_owned());
        let label = self.label_of(container);
        let ids = ids.map(copy).transpose()?;
        let mounted = blocking(move || {
            let mapped = ids.map(|ids| lower.mapped(&ids)).transpose()?;
            let top = folder.join(format!("top-{}", id.hex()));
            if lower.needs_top() {
                lower.make_top(&top, mapped.as_ref())?;
            }
            let top = lower.needs_top().then_some(top);
            let whole = match mapped {
                None => {
                    let folders: Vec<PathBuf> = top.into_iter().chain(lower.folders).collect();
                    mount::overlay(&folders, &empty, None, &folder, label.as_deref())?
                }
                Some(mapped) => {
                    // The folder on top has the right owners as it is.
                    let mut layers: Vec<OwnedFd> =
                        top.iter().map(|top| mount::folder(top)).collect::<io::Result<_>>()?;
                    layers.extend(mapped.layers);
                    // An overlay that nobody can write to needs two layers at least.
                    while layers.len() < 2 {
                        layers.push(mount::folder(&empty)?);
                    }
                    ids::overlay(&layers, None, label.as_deref())?
                }
            };
            if sub.as_os_str().is_empty() { Ok(whole) } else { mount::below(&whole, &sub, &folder) }
        });
        mounted.await?.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !sub_path.as_os_str().is_empty() => {
                Error::new(Kind::InvalidArgument, format!("image {image} has no folder {}", sub_path.display()))
            }
            _ => failed(&error, &format!("image {image} as a volume of container {container}")),
        })
    }

    async fn usage(&self, container: &ContainerId, age: Duration) -> Result<WritableLayer> {
        self.usage.get(container, &self.folder(container).join("upper"), age).await
    }

    async fn destroy(&self, container: &ContainerId) -> Result<()> {
        let _turn = self.turn(container).await;
        self.labels.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(container);
        if !self.inner.fetcher.catalog.state().leases.contains_key(container) {
            return Ok(());
        }
        self.forget(container).await
    }
}

/// A copy for another thread.
fn copy(ids: &MappedIds) -> Result<MappedIds> {
    let namespace = ids.namespace.try_clone().map_err(|error| Error::io("hold the pod's user namespace", error))?;
    Ok(MappedIds { mapping: ids.mapping, namespace })
}

fn failed(error: &io::Error, what: &str) -> Error {
    let copy = error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
    Error::io(format!("cannot mount {what}: {error}"), copy)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

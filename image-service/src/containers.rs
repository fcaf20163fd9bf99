//! What all provisioners do alike for a container: its folder, the layers that it needs, and the end of both.
//!
//! `containers/ID` holds `lease.json`, which names the layers, and whatever the provisioner keeps beside it.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tripod_engine::{ContainerId, Error, Kind, Result, plugin::Known, plugin::MappedIds, usage::WritableLayer};

use crate::{
    catalog::{Lease, State},
    digest::Digest,
    fetch::blocking,
    layout::write_whole,
    service::Inner,
    unpack::{Marks, RootAttributes},
};

/// File name of a container's lease.
pub(crate) const LEASE: &str = "lease.json";

/// The containers of a provisioner.
#[derive(Debug, Clone)]
pub(crate) struct Containers {
    pub inner: Arc<Inner>,
    /// Changes of one container's folder, one after the other.
    busy: Arc<Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>>,
    /// SELinux labels of the mounts of those that have one.
    labels: Arc<Mutex<HashMap<ContainerId, String>>>,
}

/// What an image gives to a container, the highest layer first.
pub(crate) struct Lower {
    pub folders: Vec<PathBuf>,
    /// Folders that each of them has without attributes of its own.
    pub implied: Vec<Vec<String>>,
    /// What each of them hides and its filesystem could not hold.
    pub marks: Vec<Marks>,
    pub root: RootAttributes,
}

impl Lower {
    /// The root's owner on the host, which must be one that the pod has.
    pub(crate) fn root_owner(&self, ids: Option<&tripod_engine::UserMapping>) -> io::Result<(u32, u32)> {
        let RootAttributes { uid, gid, .. } = self.root;
        let Some(ids) = ids else { return Ok((uid, gid)) };
        let beyond = || io::Error::other("its root directory belongs to an ID that the pod does not have");
        ids.uids.to_host(uid).zip(ids.gids.to_host(gid)).ok_or_else(beyond)
    }
}

impl Containers {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Self { inner: Arc::clone(inner), busy: Arc::default(), labels: Arc::default() }
    }

    /// Waits for its turn with a container.
    pub(crate) async fn turn(&self, container: &ContainerId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(busy.entry(container.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Takes an image's layers into a container's lease, so that they stay whatever becomes of the image.
    pub(crate) async fn lease(&self, spec: &str, container: &ContainerId) -> Result<(Digest, Lower)> {
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

    fn lower(&self, image: &Digest, layers: &[Digest], state: &State) -> Result<Lower> {
        let root = RootAttributes { mode: 0o755, uid: 0, gid: 0 };
        let mut lower = Lower { folders: Vec::new(), implied: Vec::new(), marks: Vec::new(), root };
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
                lower.marks.push(layer.unpacked.marks.clone());
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

    pub(crate) fn folder(&self, container: &ContainerId) -> PathBuf {
        self.inner.fetcher.layout.containers().join(container)
    }

    /// The SELinux label of all that is mounted for a container from now on.
    pub(crate) fn label(&self, container: &ContainerId, label: &str) {
        self.labels().insert(container.clone(), label.to_owned());
    }

    pub(crate) fn label_of(&self, container: &ContainerId) -> Option<String> {
        self.labels().get(container).cloned()
    }

    fn labels(&self) -> MutexGuard<'_, HashMap<ContainerId, String>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a container has written.
    pub(crate) async fn usage(&self, container: &ContainerId, age: Duration) -> Result<WritableLayer> {
        Ok(self.inner.used(container, age).await?.written)
    }

    /// Has the filesystem hold a container to this many bytes of its own; gives whether it does.
    pub(crate) async fn limit(&self, container: &ContainerId, bytes: u64) -> Result<bool> {
        if self.inner.quotas.is_err() {
            return Ok(false);
        }
        let (inner, container, folder) = (Arc::clone(&self.inner), container.clone(), self.folder(container));
        blocking(move || inner.quotas().is_some_and(|quotas| quotas.limit(&container, &folder, bytes))).await
    }

    /// Bytes that a container may still write, if the filesystem holds it to a limit.
    pub(crate) async fn left(&self, container: &ContainerId) -> Option<u64> {
        self.inner.quotas()?;
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        blocking(move || inner.quotas()?.left(&container)).await.ok()?
    }

    /// Removes the folders of containers that nobody knows.
    pub(crate) async fn recover(&self, known: &Known) -> Result<()> {
        let present: Vec<ContainerId> = self.inner.fetcher.catalog.state().leases.keys().cloned().collect();
        let mut result = Ok(());
        for container in present.into_iter().filter(|container| !known.containers.contains(container)) {
            tracing::info!(container = container.short(), "removing the writable layer of an unknown container");
            let _turn = self.turn(&container).await;
            result = result.and(self.forget(&container).await);
        }
        result
    }

    /// Lets go of a container and all that it has. Unknown ones are fine.
    pub(crate) async fn destroy(&self, container: &ContainerId) -> Result<()> {
        let _turn = self.turn(container).await;
        self.labels().remove(container);
        if !self.inner.fetcher.catalog.state().leases.contains_key(container) {
            return Ok(());
        }
        self.forget(container).await
    }

    /// Forgets a container and moves its folder to the trash.
    async fn forget(&self, container: &ContainerId) -> Result<()> {
        let (folder, inner, id) = (self.folder(container), Arc::clone(&self.inner), container.clone());
        let take = move || {
            inner.fetcher.trash.take(&folder)?;
            inner.quotas().into_iter().for_each(|quotas| quotas.release(&id));
            Ok(())
        };
        let taken: io::Result<()> = blocking(take).await?;
        taken
            .map_err(|error| Error::io(format!("cannot remove the writable layer of container {container}"), error))?;
        self.inner.fetcher.catalog.state().leases.remove(container);
        self.inner.usage.forget(container);
        self.inner.sweep.notify_one();
        Ok(())
    }
}

/// A copy for another thread.
pub(crate) fn copy(ids: &MappedIds) -> Result<MappedIds> {
    let namespace = ids.namespace.try_clone().map_err(|error| Error::io("hold the pod's user namespace", error))?;
    Ok(MappedIds { mapping: ids.mapping, namespace })
}

/// An error of the kernel, with what was being made.
pub(crate) fn failed(error: &io::Error, what: &str) -> Error {
    let copy = error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error);
    Error::io(format!("cannot make {what}: {error}"), copy)
}

/// What goes wrong with an image as a volume.
pub(crate) fn volume_failed(error: &io::Error, image: &str, sub_path: &Path, container: &ContainerId) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !sub_path.as_os_str().is_empty() => {
            Error::new(Kind::InvalidArgument, format!("image {image} has no folder {}", sub_path.display()))
        }
        _ => failed(error, &format!("image {image} as a volume of container {container}")),
    }
}

pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

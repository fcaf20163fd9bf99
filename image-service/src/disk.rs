//! What the disk is used for: images, what they share, who uses them, and what could be had back.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;
use tripod_engine::{ContainerId, Error, Result, usage::WritableLayer};

use crate::{
    catalog::State, content, digest::Digest, fetch::blocking, image::Image, room::Room, service::ImageService,
    space::FRESH, usage,
};

/// Use of the disk by everything that is below the root folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DiskUsage {
    /// In the order of their IDs.
    pub images: Vec<ImageUsage>,
    /// Unpacked layers, each counted once, and so are files that several of them have.
    pub layers: Amount,
    /// What is not there because layers have the same files: how many, and their bytes.
    pub saved: Amount,
    /// Manifests, indexes and configurations.
    pub blobs: Amount,
    /// Writable layers of containers.
    pub writable: Amount,
    /// What is being fetched; what is being deleted; layers that were replaced and are still mounted. Counted in inodes.
    pub temporary: Amount,
    /// Bytes that a prune of dangling images would free.
    pub dangling_bytes: u64,
    /// Bytes that a prune of all images that no container uses would free.
    pub unused_bytes: u64,
    /// Bytes of the filesystem.
    pub total_bytes: u64,
    /// Bytes of it that are free.
    pub free_bytes: u64,
    /// Bytes that pulls leave free.
    pub min_free_bytes: u64,
}

/// A number of things and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Use of the disk by an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its ID.
    pub id: String,
    /// Its tags, or its digests where it has no tag.
    pub names: Vec<String>,
    /// Time of creation as the image gives it.
    pub created: Option<String>,
    /// Bytes of its layers.
    pub bytes: u64,
    /// Those of layers that another image has as well.
    pub shared_bytes: u64,
    /// Those of layers that no other image has.
    pub unique_bytes: u64,
    /// It has no tag.
    pub dangling: bool,
    /// Neither prune nor the kubelet removes it.
    pub pinned: bool,
    /// Containers that were made from it or have it as a volume.
    pub containers: Vec<String>,
}

impl ImageService {
    /// What the disk is used for.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let (layout, objects) = (self.inner.fetcher.layout.clone(), Arc::clone(&self.inner.fetcher.objects));
        let found = blocking(move || {
            let mut temporary = WritableLayer::default();
            for folder in [layout.staging(), layout.trash(), layout.retired()] {
                // What goes away meanwhile, or is too deep to be counted, is not worth an error.
                let counted = usage::count(&folder).unwrap_or_default();
                temporary.bytes += counted.bytes;
                // The folder itself is no use of it.
                temporary.inodes += counted.inodes.saturating_sub(1);
            }
            content::list(&layout).and_then(|blobs| Ok((blobs, Room::of(layout.root())?, temporary, objects.saved()?)))
        });
        let failed = |error| Error::io("cannot look at the disk", error);
        let (blobs, room, temporary, saved) = found.await?.map_err(failed)?;
        let ((mut usage, gone), containers) = {
            let state = self.inner.fetcher.catalog.state();
            (images(&state, &self.inner.config.pinned), state.leases.keys().cloned().collect::<Vec<ContainerId>>())
        };
        usage.saved = Amount { count: saved.inodes, bytes: saved.bytes };
        usage.layers.bytes = usage.layers.bytes.saturating_sub(saved.bytes);
        for (freed, layers) in [&mut usage.dangling_bytes, &mut usage.unused_bytes].into_iter().zip(gone) {
            *freed = freed.saturating_sub(self.inner.staying(layers).await?);
        }
        usage.blobs = Amount { count: blobs.len() as u64, bytes: blobs.iter().map(|(_, size)| size).sum() };
        usage.temporary = Amount { count: temporary.inodes, bytes: temporary.bytes };
        for container in containers {
            let Ok(counted) = self.inner.used(&container, FRESH).await else { continue };
            usage.writable.count += 1;
            usage.writable.bytes += counted.held.bytes;
        }
        usage.total_bytes = room.total;
        usage.free_bytes = room.free;
        usage.min_free_bytes = room.floor(self.inner.config.min_free_bytes);
        Ok(usage)
    }
}

/// What can be told from memory, and the layers that a prune of dangling and one of unused images would take.
fn images(state: &State, pinned: &[String]) -> (DiskUsage, [Vec<Digest>; 2]) {
    let mut users: HashMap<&Digest, u64> = HashMap::new();
    for image in state.images.values() {
        // An image may have a layer twice.
        for layer in image.layers.iter().collect::<BTreeSet<_>>() {
            *users.entry(layer).or_default() += 1;
        }
    }
    let bytes = |layer: &Digest| state.layers.get(layer).map_or(0, |layer| layer.unpacked.disk_bytes);
    let image = |record: &Arc<crate::catalog::ImageRecord>| {
        let shown = Image::new(record, state, pinned);
        let mut usage = ImageUsage {
            id: shown.id,
            created: shown.created,
            dangling: shown.repo_tags.is_empty(),
            names: if shown.repo_tags.is_empty() { shown.repo_digests } else { shown.repo_tags },
            pinned: shown.pinned,
            containers: state.users_of(&record.id).map(ToString::to_string).collect(),
            ..ImageUsage::default()
        };
        for layer in record.layers.iter().collect::<BTreeSet<_>>() {
            match users.get(layer) {
                Some(1) => usage.unique_bytes += bytes(layer),
                _ => usage.shared_bytes += bytes(layer),
            }
        }
        usage.bytes = usage.shared_bytes + usage.unique_bytes;
        usage.containers.sort();
        usage
    };
    let images: Vec<ImageUsage> = state.images.values().map(image).collect();
    let gone = |chosen: &dyn Fn(&ImageUsage) -> bool| {
        let chosen = images.iter().filter(|image| !image.pinned && image.containers.is_empty() && chosen(image));
        let ids: HashSet<Digest> = chosen.filter_map(|image| image.id.parse().ok()).collect();
        state.freed_without(&ids)
    };
    let ((dangling, dangling_bytes), (unused, unused_bytes)) = (gone(&|image| image.dangling), gone(&|_| true));
    let usage = DiskUsage {
        dangling_bytes,
        unused_bytes,
        layers: Amount { count: state.layers.len() as u64, bytes: state.layers.keys().map(bytes).sum() },
        images,
        ..DiskUsage::default()
    };
    (usage, [dangling, unused])
}

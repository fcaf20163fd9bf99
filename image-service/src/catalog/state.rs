//! The store's contents in memory, and who needs what.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use tripod_engine::ContainerId;

use super::{Catalog, ImageRecord, Lease};
use crate::{digest::Digest, layers::Layer, reference::Reference};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub images: BTreeMap<Digest, Arc<ImageRecord>>,
    /// Full references, with tag or digest.
    pub names: BTreeMap<String, Digest>,
    pub layers: HashMap<Digest, Arc<Layer>>,
    pub leases: HashMap<ContainerId, Lease>,
    /// Layers that were fetched for an image that is not complete yet. They stay for a while when its pull fails, so that
    /// the next try need not fetch them again.
    pub kept: HashMap<Digest, Instant>,
    pins: HashMap<Digest, usize>,
}

/// How an image was named.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Id(Digest),
    Name(String, Digest),
}

impl Found {
    pub(crate) fn id(&self) -> &Digest {
        match self {
            Self::Id(id) | Self::Name(_, id) => id,
        }
    }
}

impl State {
    /// Finds an image by its ID, by a name, or by the beginning of an ID that only one image has.
    pub(crate) fn find(&self, spec: &str) -> Option<Found> {
        let hex = spec.strip_prefix("sha256:").unwrap_or(spec);
        if let Ok(id) = format!("sha256:{hex}").parse::<Digest>()
            && self.images.contains_key(&id)
        {
            return Some(Found::Id(id));
        }
        if let Ok(id) = spec.parse::<Digest>()
            && self.images.contains_key(&id)
        {
            return Some(Found::Id(id));
        }
        if let Ok(reference) = spec.parse::<Reference>() {
            let key = reference.key();
            if let Some(id) = self.names.get(&key) {
                return Some(Found::Name(key, id.clone()));
            }
        }
        let is_hex = hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if hex.is_empty() || !is_hex {
            return None;
        }
        let mut matching = self.images.keys().filter(|id| id.hex().starts_with(hex));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Some(Found::Id(id.clone())),
            _ => None,
        }
    }

    /// Names of an image.
    pub(crate) fn names_of<'a>(&'a self, id: &'a Digest) -> impl Iterator<Item = &'a String> {
        self.names.iter().filter(move |(_, named)| *named == id).map(|(name, _)| name)
    }

    pub(crate) fn pin(&mut self, digests: &[Digest]) {
        for digest in digests {
            *self.pins.entry(digest.clone()).or_default() += 1;
        }
    }

    pub(crate) fn unpin(&mut self, digests: &[Digest]) {
        for digest in digests {
            if let Some(count) = self.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    self.pins.remove(digest);
                }
            }
        }
    }

    /// Containers that were made from an image or have it as a volume.
    pub(crate) fn users_of(&self, image: &Digest) -> impl Iterator<Item = &ContainerId> {
        self.leases.iter().filter(move |(_, lease)| lease.images.contains_key(image)).map(|(container, _)| container)
    }

    /// What nothing would need if these images were gone, and layers of pulls that failed are not kept: layers, and the
    /// bytes on disk of these and of blobs. Files that layers have in common count for each of them.
    pub(crate) fn freed_without(&self, gone: &HashSet<Digest>) -> (Vec<Digest>, u64) {
        let images = || self.images.values().filter(|image| !gone.contains(&image.id));
        let of_images = images().flat_map(|image| image.layers.iter().chain(image.blobs.keys()));
        let leases = self.leases.values().flat_map(|lease| lease.images.values().flatten());
        let needed: HashSet<&Digest> = of_images.chain(leases).chain(self.pins.keys()).collect();
        let layers = self.layers.values().filter(|layer| !needed.contains(&layer.diff_id));
        let (layers, sizes): (Vec<Digest>, Vec<u64>) =
            layers.map(|layer| (layer.diff_id.clone(), layer.unpacked.disk_bytes)).unzip();
        let blobs: BTreeMap<&Digest, u64> = self
            .images
            .values()
            .filter(|image| gone.contains(&image.id))
            .flat_map(|image| &image.blobs)
            .filter(|(blob, _)| !needed.contains(blob))
            .map(|(blob, size)| (blob, *size))
            .collect();
        (layers, sizes.iter().chain(blobs.values()).sum())
    }

    /// Layers and blobs that something needs: an image, a container or a running pull.
    pub(crate) fn needed(&self) -> HashSet<Digest> {
        let images = self.images.values().flat_map(|image| image.layers.iter().chain(image.blobs.keys()));
        let leases = self.leases.values().flat_map(|lease| lease.images.values().flatten());
        let now = Instant::now();
        let kept = self.kept.iter().filter(|(_, until)| **until > now).map(|(layer, _)| layer);
        images.chain(leases).chain(kept).chain(self.pins.keys()).cloned().collect()
    }
}

/// Layers and blobs that a running pull needs, although no image has them yet.
#[derive(Debug)]
pub(crate) struct Pins {
    catalog: Arc<Catalog>,
    digests: Vec<Digest>,
}

impl Pins {
    pub(crate) fn new(catalog: &Arc<Catalog>) -> Self {
        Self { catalog: Arc::clone(catalog), digests: Vec::new() }
    }

    pub(crate) fn add(&mut self, digests: &[Digest]) {
        self.catalog.state().pin(digests);
        self.digests.extend_from_slice(digests);
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.catalog.state().unpin(&self.digests);
    }
}

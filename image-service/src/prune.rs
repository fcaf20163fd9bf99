//! Removing images that nobody uses, at once.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Serialize;
use tripod_engine::Result;

use crate::{
    catalog::{Change, ImageRecord, State},
    digest::Digest,
    gc,
    image::Image,
    service::ImageService,
};

/// Which images go. Never one that a container uses, nor a pinned one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneRequest {
    /// Those with tags, too.
    pub all: bool,
    /// Only tell.
    pub dry_run: bool,
    /// Only those that were created before, as they say themselves.
    pub created_before: Option<Timestamp>,
    /// Only those with all these labels, with these values where there is one.
    pub labels: Vec<(String, Option<String>)>,
}

/// What went, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// IDs of the images, each with its names.
    pub images: Vec<(String, Vec<String>)>,
    /// Layers that nothing else needs: those of these images, and those of pulls that were never completed.
    pub layers: u64,
    /// Their bytes on disk, with those of manifests and configurations.
    pub bytes: u64,
}

impl PruneRequest {
    fn takes(&self, record: &ImageRecord, image: &Image, state: &State) -> bool {
        let unused = !image.pinned && state.users_of(&record.id).next().is_none();
        let dangling = self.all || image.repo_tags.is_empty();
        let old = self.created_before.is_none_or(|limit| {
            let created = record.created.as_deref().and_then(|created| created.parse::<Timestamp>().ok());
            created.is_some_and(|created| created < limit)
        });
        let labelled = self.labels.iter().all(|(key, value)| {
            record.labels.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        });
        unused && dangling && old && labelled
    }

    /// Images that go, and layers that go with them.
    fn choose(&self, state: &State, pinned: &[String]) -> (HashSet<Digest>, Vec<Digest>, Pruned) {
        let (mut chosen, mut pruned) = (HashSet::new(), Pruned::default());
        for record in state.images.values() {
            let image = Image::new(record, state, pinned);
            if self.takes(record, &image, state) {
                chosen.insert(record.id.clone());
                pruned.images.push((image.id, [image.repo_tags, image.repo_digests].concat()));
            }
        }
        let (layers, bytes) = state.freed_without(&chosen);
        (pruned.layers, pruned.bytes) = (layers.len() as u64, bytes);
        (chosen, layers, pruned)
    }
}

impl ImageService {
    /// Removes what the request says, with everything that nobody needs any more, and waits until the disk has it back.
    pub async fn prune(&self, request: PruneRequest) -> Result<Pruned> {
        let pinned = self.inner.config.pinned.clone();
        if request.dry_run {
            let (_, layers, mut pruned) = request.choose(&self.inner.fetcher.catalog.state(), &pinned);
            pruned.bytes = pruned.bytes.saturating_sub(self.inner.staying(layers).await?);
            return Ok(pruned);
        }
        let decide = move |state: &State| {
            let (chosen, layers, pruned) = request.choose(state, &pinned);
            (Change::without(state, |image| chosen.contains(&image.id)), (layers, pruned))
        };
        let (layers, mut pruned) = self.inner.fetcher.catalog.change(decide).await?;
        pruned.bytes = pruned.bytes.saturating_sub(self.inner.staying(layers).await?);
        self.inner.fetcher.catalog.state().kept.clear();
        gc::sweep(&self.inner).await;
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests;

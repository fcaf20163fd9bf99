//! Fetching again what a check found broken, from where its images came.
//!
//! A layer is replaced as a whole, in one rename. Containers that run keep the tree that they have mounted: it is set
//! aside in `retired/NAME` with the list of those containers in `retired/NAME.json`, and goes to the trash when none of
//! them is left.

use std::{collections::BTreeSet, io, sync::Arc};

use tripod_engine::{ContainerId, Error, Kind, Result};

use super::{CheckEvent, Scope, name};
use crate::{
    artifact::{self, Artifact},
    catalog::ImageRecord,
    content,
    digest::Digest,
    fetch::blocking,
    layers::Layer,
    manifest::{Descriptor, Document},
    progress::{LayerMeter, PullMeter},
    reference::Reference,
    registry::{Session, auth::RegistryAuth},
    room::{self, Form},
    service::Inner,
};

/// A repair under way.
pub(super) struct Repair<'a> {
    inner: &'a Arc<Inner>,
    scope: &'a Scope,
    auth: Option<&'a RegistryAuth>,
}

impl<'a> Repair<'a> {
    pub(super) fn new(inner: &'a Arc<Inner>, scope: &'a Scope, auth: Option<&'a RegistryAuth>) -> Self {
        Self { inner, scope, auth }
    }

    /// Fetches a manifest, an index or a configuration.
    pub(super) async fn blob(&self, digest: &Digest) -> CheckEvent {
        let mut tries = Vec::new();
        for (image, reference) in self.sources(|image| image.blobs.contains_key(digest)) {
            match self.fetch_blob(&image, &reference, digest).await {
                Ok(()) => {
                    let (object, from) = (name("blob", digest), reference.to_string());
                    return CheckEvent::Repaired { object, from, containers: Vec::new() };
                }
                Err(error) => tries.push(error.to_string()),
            }
        }
        failed(name("blob", digest), &tries)
    }

    async fn fetch_blob(&self, image: &ImageRecord, reference: &Reference, digest: &Digest) -> Result<()> {
        let session = self.inner.registries.session(reference, self.auth)?;
        let bytes = if *digest == image.id && image.artifact.is_none() {
            let size = image.blobs.get(digest).copied().unwrap_or(0);
            let descriptor =
                Descriptor { media_type: None, digest: digest.clone(), size, platform: None, annotations: None };
            session.small_blob(&descriptor).await?
        } else {
            session.manifest(&digest.to_string(), Some(digest)).await?.bytes
        };
        let (layout, digest) = (self.inner.fetcher.layout.clone(), digest.clone());
        let written = blocking(move || content::write(&layout, &digest, &bytes)).await?;
        written.map_err(|error| Error::io("cannot store the blob", error))
    }

    /// Fetches a layer and puts it in place of the one that is there.
    pub(super) async fn layer(&self, diff_id: &Digest) -> CheckEvent {
        let mut tries = Vec::new();
        for (image, reference) in self.sources(|image| image.layers.contains(diff_id)) {
            let fetched = match self.origin(&image, diff_id).await {
                Ok(origin) => self.fetch_layer(&reference, origin, diff_id).await,
                Err(error) => Err(error),
            };
            match fetched {
                Ok(containers) => {
                    let containers = containers.iter().map(ToString::to_string).collect();
                    let (object, from) = (name("layer", diff_id), reference.to_string());
                    return CheckEvent::Repaired { object, from, containers };
                }
                Err(error) => tries.push(error.to_string()),
            }
        }
        failed(name("layer", diff_id), &tries)
    }

    /// Images that have something, each with the names by which registries know it: those with a digest first, for tags
    /// may have moved.
    fn sources(&self, has: impl Fn(&ImageRecord) -> bool) -> Vec<(Arc<ImageRecord>, Reference)> {
        let state = self.inner.fetcher.catalog.state();
        let mut sources = Vec::new();
        for image in self.scope.images.iter().filter(|image| has(image)) {
            let mut names: Vec<&String> = state.names_of(&image.id).collect();
            names.sort_by_key(|name| !name.contains('@'));
            let references = names.into_iter().filter_map(|name| name.parse::<Reference>().ok());
            sources.extend(references.map(|reference| (Arc::clone(image), reference)));
        }
        sources
    }

    /// What a layer came from, by a manifest of an image.
    async fn origin(&self, image: &Arc<ImageRecord>, diff_id: &Digest) -> Result<Origin> {
        let (layout, image, limit) =
            (self.inner.fetcher.layout.clone(), Arc::clone(image), self.inner.config.limits.layers);
        let unknown = Error::new(Kind::NotFound, format!("no manifest of image {} names its layers", image.id));
        if image.artifact.is_some() {
            let manifest = blocking(move || content::read(&layout, &image.id)).await?;
            let artifact = manifest.and_then(|manifest| Artifact::parse(&manifest, limit).ok());
            return artifact.map(Origin::Artifact).ok_or(unknown);
        }
        let Some(index) = image.layers.iter().position(|layer| layer == diff_id) else { return Err(unknown) };
        let found = blocking(move || {
            image.blobs.keys().filter(|blob| **blob != image.id).find_map(|blob| {
                let bytes = content::read(&layout, blob)?;
                match Document::parse(&bytes, "", limit).ok()? {
                    Document::Image(manifest) if manifest.layers.len() == image.layers.len() => {
                        manifest.layers.into_iter().nth(index)
                    }
                    _ => None,
                }
            })
        });
        found.await?.map(Origin::Blob).ok_or(unknown)
    }

    async fn fetch_layer(&self, reference: &Reference, origin: Origin, diff_id: &Digest) -> Result<Vec<ContainerId>> {
        let session = Arc::new(self.inner.registries.session(reference, self.auth)?);
        let meter = match &origin {
            Origin::Blob(blob) => LayerMeter::of(blob),
            Origin::Artifact(artifact) => LayerMeter::new(diff_id.clone(), artifact.size(), Form::Files),
        };
        let all = Arc::new(PullMeter::default());
        all.set(vec![Arc::clone(&meter)]);
        let _admission = room::admit(self.inner, &all).await?;
        let ticket = {
            let (inner, key, watch) = (Arc::clone(self.inner), diff_id.clone(), Arc::clone(&meter));
            let work = {
                let diff_id = diff_id.clone();
                move || async move { replace(&inner, &session, &origin, &diff_id, &meter).await }
            };
            self.inner.fetcher.flights.join(key, watch, work)
        };
        ticket.outcome.await?;
        Ok(holders(self.inner, diff_id))
    }
}

/// What a layer is made from.
enum Origin {
    /// Its archive.
    Blob(Descriptor),
    /// Files, which are packed on their way.
    Artifact(Artifact),
}

fn failed(object: String, tries: &[String]) -> CheckEvent {
    let why = match tries {
        [] => "no registry is known for it: remove the image and fetch or load it again".to_owned(),
        tries => format!("{}; credentials can be given with --creds", tries.join("; ")),
    };
    CheckEvent::NotRepaired { object, why }
}

/// Containers that were made from a layer.
fn holders(inner: &Inner, diff_id: &Digest) -> Vec<ContainerId> {
    let state = inner.fetcher.catalog.state();
    let has = |lease: &crate::catalog::Lease| lease.images.values().flatten().any(|layer| layer == diff_id);
    state.leases.iter().filter(|(_, lease)| has(lease)).map(|(id, _)| id.clone()).collect()
}

/// Fetches a layer beside the one that is there, and exchanges the two.
async fn replace(
    inner: &Arc<Inner>,
    session: &Session,
    origin: &Origin,
    diff_id: &Digest,
    meter: &LayerMeter,
) -> Result<Arc<Layer>> {
    let fetcher = &inner.fetcher;
    let (staging, unpacked) = match origin {
        Origin::Blob(blob) => fetcher.stage(session, blob, diff_id, meter).await?,
        Origin::Artifact(artifact) => {
            let (staging, unpacked, got) = artifact::stage(fetcher, session, artifact, meter).await?;
            if got != *diff_id {
                let message = format!("its files make the layer {got} now: remove the artifact and pull it again");
                return Err(Error::new(Kind::FailedPrecondition, message));
            }
            (staging, unpacked)
        }
    };
    let layer = Layer::new(diff_id.clone(), unpacked, &fetcher.boot);
    let (layout, own) = (fetcher.layout.clone(), layer.clone());
    let kept: BTreeSet<ContainerId> = holders(inner, diff_id).into_iter().collect();
    let replaced = blocking(move || staging.replace(&layout, &own, &kept)).await?;
    replaced.map_err(|error| Error::io("cannot put the new files of a layer in place of the broken ones", error))?;
    let layer = Arc::new(layer);
    fetcher.catalog.state().layers.insert(diff_id.clone(), Arc::clone(&layer));
    inner.sync.notify_one();
    inner.sweep.notify_one();
    Ok(layer)
}

/// Throws away replaced layers that no container has mounted any more.
pub(crate) fn clear_retired(inner: &Inner) -> io::Result<()> {
    let retired = inner.fetcher.layout.retired();
    let trash = &inner.fetcher.trash;
    let _alone = trash.retiring();
    for entry in std::fs::read_dir(retired)? {
        let list = entry?.path();
        if list.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let holders: BTreeSet<ContainerId> =
            std::fs::read(&list).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let held = {
            let state = inner.fetcher.catalog.state();
            holders.iter().any(|holder| state.leases.contains_key(holder))
        };
        if !held {
            trash.take(&list.with_extension(""))?;
            trash.take(&list)?;
        }
    }
    Ok(())
}

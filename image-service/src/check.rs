//! Checking the whole store: blobs are hashed again, every file of every layer is held against the layer's record, and
//! each layer's archive is put together again where that can be done, which must give the layer's digest.
//!
//! Nothing waits for it: it holds no lock, and what it looks at is pinned meanwhile, so that nothing is collected under
//! its eyes. It reads all that there is, one layer after the other.

mod compare;
mod repair;

use std::{collections::BTreeMap, path::Path, sync::Arc};

pub(crate) use repair::clear_retired;
use serde::Serialize;
use tokio::sync::mpsc;
use tripod_engine::{Error, Kind, Result};

use crate::{
    catalog::{ImageRecord, Pins},
    content::{self, BlobState},
    digest::Digest,
    fetch::blocking,
    layers::FILES,
    registry::auth::RegistryAuth,
    service::{ImageService, Inner},
    skeleton::{self, SkeletonError},
};

/// What to check.
#[derive(Debug, Default)]
pub struct CheckRequest {
    /// Images, by names or IDs; none is all, with what containers hold beside them.
    pub images: Vec<String>,
    /// Fetch again what is broken.
    pub repair: bool,
    /// Credentials for that, for this call alone.
    pub auth: Option<RegistryAuth>,
}

/// What a check comes to, one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckEvent {
    /// A layer or the blobs have been looked at.
    Checked {
        /// Which.
        object: String,
        /// Objects so far.
        done: usize,
        /// Objects in all.
        total: usize,
        /// Bytes that were read for it.
        bytes: u64,
    },
    /// Something is wrong.
    Problem(Problem),
    /// What was wrong with an object is right again.
    Repaired {
        /// Which.
        object: String,
        /// Where it was fetched from.
        from: String,
        /// Containers that go on with the old one until they end.
        containers: Vec<String>,
    },
    /// What is wrong with an object stays wrong.
    NotRepaired {
        /// Which.
        object: String,
        /// Why, and what can be done.
        why: String,
    },
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `layer sha256:…` or `blob sha256:…`.
    pub object: String,
    /// IDs of the images that need it.
    pub images: Vec<String>,
    /// Path in a layer, where it is about one file.
    pub path: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// What came of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    /// Images that were looked at.
    pub images: usize,
    /// Layers that were looked at.
    pub layers: usize,
    /// Manifests, indexes and configurations that were looked at.
    pub blobs: usize,
    /// Bytes that were read.
    pub bytes: u64,
    /// Layers and blobs that were not as they should be.
    pub broken: usize,
    /// Of those, how many are right again.
    pub repaired: usize,
}

/// What is to be looked at, and who needs it.
#[derive(Default)]
struct Scope {
    images: Vec<Arc<ImageRecord>>,
    layers: BTreeMap<Digest, Vec<String>>,
    blobs: BTreeMap<Digest, Vec<String>>,
}

impl Scope {
    fn of(inner: &Inner, wanted: &[String]) -> Result<Self> {
        let state = inner.fetcher.catalog.state();
        let mut scope = Self::default();
        for spec in wanted {
            let found = state.find(spec).and_then(|found| state.images.get(found.id()));
            let unknown = || Error::new(Kind::NotFound, format!("image {spec:?} is not on this node"));
            scope.images.push(Arc::clone(found.ok_or_else(unknown)?));
        }
        if wanted.is_empty() {
            scope.images = state.images.values().cloned().collect();
            // What no image has any more, but a container.
            let leases = state.leases.values().flat_map(|lease| &lease.images);
            for (image, layers) in leases.filter(|(image, _)| !state.images.contains_key(*image)) {
                for layer in layers {
                    scope.layers.entry(layer.clone()).or_default().push(image.to_string());
                }
            }
        }
        for image in &scope.images {
            for layer in &image.layers {
                scope.layers.entry(layer.clone()).or_default().push(image.id.to_string());
            }
            for blob in image.blobs.keys() {
                scope.blobs.entry(blob.clone()).or_default().push(image.id.to_string());
            }
        }
        for needed in scope.layers.values_mut().chain(scope.blobs.values_mut()) {
            needed.sort();
            needed.dedup();
        }
        Ok(scope)
    }
}

impl ImageService {
    /// Looks at everything, tells what it finds to `events`, and repairs it if that is asked for. Ends early when nobody
    /// listens any more.
    pub async fn check(&self, request: CheckRequest, events: mpsc::Sender<CheckEvent>) -> Result<CheckSummary> {
        let inner = &self.inner;
        let mut pins = Pins::new(&inner.fetcher.catalog);
        let scope = Scope::of(inner, &request.images)?;
        pins.add(&scope.layers.keys().chain(scope.blobs.keys()).cloned().collect::<Vec<_>>());
        let mut summary = CheckSummary {
            images: scope.images.len(),
            layers: scope.layers.len(),
            blobs: scope.blobs.len(),
            ..CheckSummary::default()
        };
        let total = scope.layers.len() + 1;
        let tell = async |event| events.send(event).await.map_err(|_| gone());

        let broken_blobs = blobs(inner, &scope).await?;
        for problem in broken_blobs.values() {
            tell(CheckEvent::Problem(problem.clone())).await?;
        }
        tell(CheckEvent::Checked { object: "manifests and configurations".into(), done: 1, total, bytes: 0 }).await?;
        let mut broken_layers = Vec::new();
        for (index, (layer, images)) in scope.layers.iter().enumerate() {
            let (problems, bytes) = self::layer(inner, layer, images).await?;
            summary.bytes += bytes;
            if !problems.is_empty() {
                broken_layers.push(layer.clone());
            }
            for problem in problems {
                tell(CheckEvent::Problem(problem)).await?;
            }
            tell(CheckEvent::Checked { object: name("layer", layer), done: index + 2, total, bytes }).await?;
        }
        summary.broken = broken_blobs.len() + broken_layers.len();
        if request.repair && summary.broken > 0 {
            let repair = repair::Repair::new(inner, &scope, request.auth.as_ref());
            // Blobs first: manifests tell where layers come from.
            for blob in broken_blobs.keys() {
                let event = repair.blob(blob).await;
                summary.repaired += usize::from(matches!(event, CheckEvent::Repaired { .. }));
                tell(event).await?;
            }
            for layer in &broken_layers {
                let event = repair.layer(layer).await;
                summary.repaired += usize::from(matches!(event, CheckEvent::Repaired { .. }));
                tell(event).await?;
            }
        }
        Ok(summary)
    }
}

fn gone() -> Error {
    Error::new(Kind::Unavailable, "whoever asked for the check is gone")
}

fn name(kind: &str, digest: &Digest) -> String {
    format!("{kind} {digest}")
}

/// Hashes manifests, indexes and configurations again.
async fn blobs(inner: &Inner, scope: &Scope) -> Result<BTreeMap<Digest, Problem>> {
    let (layout, wanted) = (inner.fetcher.layout.clone(), scope.blobs.clone());
    let checked = move || {
        let mut broken = BTreeMap::new();
        for (digest, images) in wanted {
            let what = match content::state(&layout, &digest) {
                BlobState::Good => continue,
                BlobState::Missing => "is missing",
                BlobState::Wrong => "has other content than its digest says",
            };
            let object = name("blob", &digest);
            broken.insert(digest, Problem { object, images, path: None, what: what.into() });
        }
        broken
    };
    blocking(checked).await
}

/// Holds a layer against its record.
async fn layer(inner: &Inner, digest: &Digest, images: &[String]) -> Result<(Vec<Problem>, u64)> {
    let problem = |path: Option<String>, what: String| Problem {
        object: name("layer", digest),
        images: images.to_vec(),
        path,
        what,
    };
    if !inner.fetcher.catalog.state().layers.contains_key(digest) {
        return Ok((vec![problem(None, "is missing".into())], 0));
    }
    let (folder, diff_id) = (inner.fetcher.layout.layer(digest), digest.clone());
    let compared = blocking(move || differences(&folder, &diff_id));
    match compared.await? {
        Err(what) => Ok((vec![problem(None, what)], 0)),
        Ok(differences) => {
            let more = differences.count - differences.told.len();
            let mut problems: Vec<Problem> =
                differences.told.into_iter().map(|(path, what)| problem(Some(path), what)).collect();
            if more > 0 {
                problems.push(problem(None, format!("{more} more files differ")));
            }
            Ok((problems, differences.bytes))
        }
    }
}

/// Whether a layer is as its record and its digest say.
pub(crate) fn is_whole(folder: &Path, diff_id: &Digest) -> bool {
    differences(folder, diff_id).is_ok_and(|differences| differences.count == 0)
}

/// How a layer's files differ from their record, or what keeps them from being compared.
fn differences(folder: &Path, diff_id: &Digest) -> std::result::Result<compare::Differences, String> {
    let (fs, files) = (folder.join("fs"), folder.join(FILES));
    if !fs.is_dir() {
        return Err("its files are missing".to_owned());
    }
    if !files.exists() {
        return Err("it has no record of its files".to_owned());
    }
    let differences =
        compare::compare(&fs, &files).map_err(|error| format!("cannot be compared with its record: {error}"))?;
    // The record says which file, the archive put together again says that there is nothing else.
    if differences.count == 0 {
        let archive = skeleton::Archive::open(folder);
        let restored = archive.and_then(|archive| archive.write(diff_id, &mut std::io::sink()));
        match restored {
            // Content that a later entry of the same archive replaced is nowhere any more.
            Err(SkeletonError::Absent | SkeletonError::Changed { .. }) => {}
            restored => restored.map_err(|error| format!("does not give its archive back: {error}"))?,
        }
    }
    Ok(differences)
}

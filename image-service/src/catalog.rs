//! What is in the store: names over images over layers, and who needs them.
//!
//! Names and images live in `images.redb`, with one durable commit per pull. All reads are answered from memory; the
//! lock around that is never held while waiting for anything.
//!
//! The database has three tables. `meta`: `schema` (the version of this format, as decimal text) and `boot` (under
//! which blobs were last checked). `images`: image ID → [`ImageRecord`] as JSON. `names`: full reference → image ID.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tripod_engine::{ContainerId, ImageConfig};

use crate::{digest::Digest, layers::Layer, reference::Reference};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");
const SCHEMA: u32 = 1;
const CACHE: usize = 1 << 20;

/// Why the database cannot be used.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// Another daemon has it.
    #[error("cannot open the image database {path}: is another tripod running with the same root folder?")]
    Open {
        /// The file.
        path: String,
        /// Cause.
        source: Box<redb::DatabaseError>,
    },
    /// A later version of tripod has written it.
    #[error(
        "the image database has format {found}, this tripod knows {SCHEMA} at most: use the newer tripod, or another root folder"
    )]
    Newer {
        /// Format in the file.
        found: String,
    },
    /// An operation failed: the disk is full or broken, or the file is damaged.
    #[error("the image database (images.redb) failed to {step}")]
    Database {
        /// What was tried.
        step: &'static str,
        /// Cause.
        source: Box<redb::Error>,
    },
    /// A record could not be written as JSON.
    #[error("a record cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

fn failed<E: Into<redb::Error>>(step: &'static str) -> impl Fn(E) -> CatalogError {
    move |error| CatalogError::Database { step, source: Box::new(error.into()) }
}

fn open(path: &Path) -> Result<Database, CatalogError> {
    Database::builder().set_cache_size(CACHE).create(path).map_err(|source| match source {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            CatalogError::Open { path: path.display().to_string(), source: Box::new(source) }
        }
        source => failed("open")(source),
    })
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of its configuration.
    pub id: Digest,
    /// Manifests, indexes and the configuration, with their bytes. One configuration may have come with several
    /// manifests.
    pub blobs: BTreeMap<Digest, u64>,
    /// Diff IDs, the lowest layer first.
    pub layers: Vec<Digest>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    pub created: Option<String>,
    pub config: ImageConfig,
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// The type of an artifact, which is no image; its ID is the digest of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
}

/// What a container keeps alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Layers of each image, the lowest first: the image may be removed while the container needs them.
    pub images: BTreeMap<Digest, Vec<Digest>>,
}

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

/// The store's table of contents.
pub(crate) struct Catalog {
    path: PathBuf,
    /// None after a failure that did not let it be opened again.
    database: Mutex<Option<Database>>,
    state: Mutex<State>,
    /// One change at a time, from reading what is to be changed to its commit.
    change: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Catalog")
    }
}

/// A change of names and images.
#[derive(Debug, Default)]
pub(crate) struct Change {
    put: Vec<ImageRecord>,
    drop: Vec<Digest>,
    name: Vec<(String, Digest)>,
    unname: Vec<String>,
}

impl Catalog {
    /// Opens the database, or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, CatalogError> {
        let database = open(path)?;
        let mut state = State::default();
        let write = database.begin_write().map_err(failed("begin"))?;
        {
            let mut meta = write.open_table(META).map_err(failed("open a table"))?;
            let found = meta.get("schema").map_err(failed("read"))?.map(|found| found.value().to_owned());
            match found {
                None => {
                    meta.insert("schema", SCHEMA.to_string().as_str()).map_err(failed("write"))?;
                }
                Some(found) if found.parse() == Ok(SCHEMA) => {}
                Some(found) => return Err(CatalogError::Newer { found }),
            }
            let images = write.open_table(IMAGES).map_err(failed("open a table"))?;
            for item in images.iter().map_err(failed("read"))? {
                let (_, value) = item.map_err(failed("read"))?;
                let record: ImageRecord = serde_json::from_slice(value.value())?;
                state.images.insert(record.id.clone(), Arc::new(record));
            }
            let names = write.open_table(NAMES).map_err(failed("open a table"))?;
            for item in names.iter().map_err(failed("read"))? {
                let (name, id) = item.map_err(failed("read"))?;
                if let Ok(id) = id.value().parse::<Digest>()
                    && state.images.contains_key(&id)
                {
                    state.names.insert(name.value().to_owned(), id);
                }
            }
        }
        write.commit().map_err(failed("commit"))?;
        Ok(Self {
            path: path.to_owned(),
            database: Mutex::new(Some(database)),
            state: Mutex::new(state),
            change: tokio::sync::Mutex::new(()),
        })
    }

    /// The state. Never hold it across anything that waits.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the database. Once the disk has failed, redb refuses everything until its file is opened anew, which is
    /// done here, at once or by the next that comes: there may be room again by then.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let outcome = work(&database);
        *slot = match &outcome {
            Err(CatalogError::Database { .. }) => {
                drop(database);
                open(&self.path).ok()
            }
            _ => Some(database),
        };
        outcome
    }

    /// The boot under which blobs were last checked.
    pub(crate) fn checked_boot(&self) -> Result<Option<String>, CatalogError> {
        self.with(|database| {
            let read = database.begin_read().map_err(failed("begin"))?;
            let meta = read.open_table(META).map_err(failed("open a table"))?;
            Ok(meta.get("boot").map_err(failed("read"))?.map(|boot| boot.value().to_owned()))
        })
    }

    pub(crate) fn record_checked_boot(&self, boot: &str) -> Result<(), CatalogError> {
        self.with(|database| {
            let write = database.begin_write().map_err(failed("begin"))?;
            write.open_table(META).map_err(failed("open a table"))?.insert("boot", boot).map_err(failed("write"))?;
            write.commit().map_err(failed("commit"))
        })
    }

    /// Decides on a change from the state as it is, commits it and then shows it. The change is made even if the
    /// caller goes away in the midst of it.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&State) -> (Change, T) + Send + 'static,
    ) -> Result<T, CatalogError> {
        let catalog = Arc::clone(self);
        let task = tokio::spawn(async move {
            let _one = catalog.change.lock().await;
            let (change, answer) = decide(&catalog.state());
            let worker = Arc::clone(&catalog);
            let change = match tokio::task::spawn_blocking(move || worker.commit(&change).map(|()| change)).await {
                Ok(committed) => committed?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            change.apply(&mut catalog.state());
            Ok(answer)
        });
        match task.await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// As [`Self::change`], for the time before there are tasks.
    pub(crate) fn change_now(&self, decide: impl FnOnce(&State) -> Change) -> Result<(), CatalogError> {
        let change = decide(&self.state());
        self.commit(&change)?;
        change.apply(&mut self.state());
        Ok(())
    }

    fn commit(&self, change: &Change) -> Result<(), CatalogError> {
        if change.is_empty() {
            return Ok(());
        }
        self.with(|database| change.write(database))
    }
}

impl Change {
    fn write(&self, database: &Database) -> Result<(), CatalogError> {
        let write = database.begin_write().map_err(failed("begin"))?;
        {
            let mut images = write.open_table(IMAGES).map_err(failed("open a table"))?;
            for record in &self.put {
                let bytes = serde_json::to_vec(record)?;
                images.insert(record.id.to_string().as_str(), bytes.as_slice()).map_err(failed("write"))?;
            }
            for id in &self.drop {
                images.remove(id.to_string().as_str()).map_err(failed("write"))?;
            }
            let mut names = write.open_table(NAMES).map_err(failed("open a table"))?;
            for name in &self.unname {
                names.remove(name.as_str()).map_err(failed("write"))?;
            }
            for (name, id) in &self.name {
                names.insert(name.as_str(), id.to_string().as_str()).map_err(failed("write"))?;
            }
        }
        write.commit().map_err(failed("commit"))
    }

    fn is_empty(&self) -> bool {
        self.put.is_empty() && self.drop.is_empty() && self.name.is_empty() && self.unname.is_empty()
    }

    fn apply(self, state: &mut State) {
        for name in self.unname {
            state.names.remove(&name);
        }
        for id in self.drop {
            state.images.remove(&id);
        }
        for record in self.put {
            for layer in &record.layers {
                state.kept.remove(layer);
            }
            state.images.insert(record.id.clone(), Arc::new(record));
        }
        state.names.extend(self.name);
    }

    /// A pulled image: its tag moves to it, and its digest in this repository names it too.
    pub(crate) fn pulled(state: &State, mut record: ImageRecord, reference: &Reference, digest: &Digest) -> Self {
        if let Some(known) = state.images.get(&record.id) {
            record.blobs.extend(known.blobs.iter().map(|(digest, size)| (digest.clone(), *size)));
        }
        let names = reference.tagged().into_iter().chain([reference.with_digest(digest)]);
        let name = names.map(|name| (name, record.id.clone())).collect();
        Self { put: vec![record], name, ..Self::default() }
    }

    /// An image out of an archive: its names move to it. An image without a name is known by its ID.
    pub(crate) fn loaded(state: &State, mut record: ImageRecord, names: &[Reference]) -> Self {
        if let Some(known) = state.images.get(&record.id) {
            record.blobs.extend(known.blobs.iter().map(|(digest, size)| (digest.clone(), *size)));
        }
        let name = names.iter().map(|name| (name.key(), record.id.clone())).collect();
        Self { put: vec![record], name, ..Self::default() }
    }

    /// Takes a name away. With the last tag, and with a name that is an ID, goes the image.
    pub(crate) fn removal(state: &State, spec: &str) -> (Self, Option<Removed>) {
        let Some(found) = state.find(spec) else { return (Self::default(), None) };
        let (id, name) = match found {
            Found::Id(id) => (id, None),
            Found::Name(name, id) => (id, Some(name)),
        };
        let all: Vec<String> = state.names_of(&id).cloned().collect();
        let is_tag = |name: &String| !name.contains('@');
        let more = |name: &String| match is_tag(name) {
            true => all.iter().any(|other| is_tag(other) && other != name),
            false => all.iter().any(|other| other != name),
        };
        let untagged = match &name {
            Some(name) if more(name) => vec![name.clone()],
            _ => all,
        };
        let deleted = !name.is_some_and(|name| untagged == [name] && state.names_of(&id).count() > 1);
        let drop = if deleted { vec![id.clone()] } else { Vec::new() };
        let removed = Removed { id: id.to_string(), untagged: untagged.clone(), deleted };
        (Self { drop, unname: untagged, ..Self::default() }, Some(removed))
    }

    /// Some images go, with all their names.
    pub(crate) fn without(state: &State, goes: impl Fn(&ImageRecord) -> bool) -> Self {
        let drop: Vec<Digest> =
            state.images.values().filter(|image| goes(image)).map(|image| image.id.clone()).collect();
        let unname = drop.iter().flat_map(|id| state.names_of(id)).cloned().collect();
        Self { drop, unname, ..Self::default() }
    }
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The image's ID.
    pub id: String,
    /// Names that it lost.
    pub untagged: Vec<String>,
    /// The image itself is gone; its layers follow in the background if nothing else needs them.
    pub deleted: bool,
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

#[cfg(test)]
mod tests;

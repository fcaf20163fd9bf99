//! Images out of archives: OCI layouts, and what `docker save` writes.
//!
//! The archive is read once, from front to back, as it comes in. What looks like a layer is unpacked at once, since most
//! archives have their manifests at the end; a layer's name in the store is its diff ID, so nothing has to be known of the
//! image for that. What has become of each entry is then held against manifests and configurations. Layers that no image
//! turns out to need go with the next sweep.

mod adopt;
mod index;
mod intake;

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;
use tripod_engine::{Error, Kind, Result};

use crate::{
    catalog::{Change, ImageRecord, Pins},
    content,
    digest::Digest,
    fetch::blocking,
    image::Image,
    manifest::ManifestError,
    platform::Platform,
    policy,
    reference::{InvalidReference, Reference},
    service::{ImageService, Inner},
    unpack::UnpackError,
};

/// An archive on its way in.
#[derive(Debug)]
pub struct LoadRequest {
    /// Its bytes, in order: tar, or tar in gzip or zstd. An error in between ends the load without an image.
    pub archive: mpsc::Receiver<io::Result<Bytes>>,
    /// Name of the one image that is in it, in place of those that the archive gives.
    pub name: Option<String>,
    /// Which image to take of several, as `linux/arm64/v8`; this machine's without.
    pub platform: Option<String>,
}

/// Why an archive cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// The connection to whoever sends it, or its compression, is broken.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// It is no tar archive, or a broken one.
    #[error("the archive is broken")]
    Archive(#[source] UnpackError),
    /// Something is wrong with one of its entries.
    #[error("entry {entry:?}: {why}")]
    Entry {
        /// Its path.
        entry: String,
        /// What.
        why: String,
    },
    /// A manifest or a configuration in it is wrong.
    #[error("entry {entry:?}")]
    Manifest {
        /// Its path.
        entry: String,
        /// What.
        source: ManifestError,
    },
    /// A layer cannot be kept.
    #[error("entry {entry:?}: cannot unpack it")]
    Unpack {
        /// Its path.
        entry: String,
        /// Why.
        source: UnpackError,
    },
    /// What is in it is no image.
    #[error(
        "it has neither an index.json, as OCI layouts have, nor a manifest.json, as `docker save` writes: is it cut off?"
    )]
    NoImage,
    /// A name does not fit.
    #[error("the archive has {0} images, and one name is for one image: load it without --name")]
    OneName(usize),
    /// A name in it is none.
    #[error("the archive names an image wrongly")]
    Name(#[from] InvalidReference),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl LoadError {
    fn entry(entry: &[u8], why: impl Into<String>) -> Self {
        Self::Entry { entry: shown(entry), why: why.into() }
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        let step = "cannot load the archive";
        match error {
            LoadError::Store(error) => error.during(step),
            LoadError::Unpack { ref source, .. } => Self::with(crate::error::unpack_kind(source), step, error),
            LoadError::Manifest { ref source, .. } => Self::with(crate::error::manifest_kind(source), step, error),
            _ => Self::with(Kind::InvalidArgument, step, error),
        }
    }
}

/// A path for messages.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned()
}

/// An image of an archive, whose layers are in the store.
#[derive(Debug)]
struct Found {
    record: ImageRecord,
    /// Manifests, indexes and the configuration.
    blobs: BTreeMap<Digest, Vec<u8>>,
    names: Vec<Reference>,
}

impl ImageService {
    /// Takes the images of an archive into the store and gives them.
    pub async fn load(&self, request: LoadRequest) -> Result<Vec<Image>> {
        let LoadRequest { archive, name, platform } = request;
        let name = name.map(|name| name.parse::<Reference>()).transpose()?;
        if name.as_ref().is_some_and(|name| name.tagged().is_none()) {
            return Err(Error::new(Kind::InvalidArgument, "--name: an archive can be given a tag, but no digest"));
        }
        let platform = platform.as_deref().map(str::parse::<Platform>).transpose();
        let platform = platform.map_err(|why| Error::new(Kind::InvalidArgument, format!("--platform: {why}")))?;
        let inner = Arc::clone(&self.inner);
        let outcome = blocking(move || {
            let mut pins = Pins::new(&inner.fetcher.catalog);
            let contents = intake::read(&inner, archive, &mut pins)?;
            let transport = index::transport(&contents);
            let mut found = index::images(&inner, contents, platform.as_ref(), &mut pins)?;
            if let Some(name) = name {
                match &mut found[..] {
                    [one] => one.names = vec![name],
                    several => return Err(LoadError::OneName(several.len())),
                }
            }
            Ok((found, pins, transport))
        });
        let outcome = match outcome.await? {
            Ok((found, pins, transport)) => {
                let kept = match policy::check_archive(&self.inner, transport).await {
                    Ok(()) => keep(&self.inner, found).await,
                    Err(error) => Err(error.during("cannot load the archive")),
                };
                drop(pins);
                kept
            }
            Err(error) => Err(error.into()),
        };
        // Of layers that no image needs, too.
        self.inner.sweep.notify_one();
        self.inner.sync.notify_one();
        let state = self.inner.fetcher.catalog.state();
        let image = |record: &ImageRecord| Image::new(record, &state, &self.inner.config.pinned);
        Ok(outcome?.iter().map(image).collect())
    }
}

/// Stores what describes the images, and names them.
async fn keep(inner: &Arc<Inner>, found: Vec<Found>) -> Result<Vec<ImageRecord>> {
    let mut records = Vec::new();
    for Found { record, blobs, names } in found {
        let layout = inner.fetcher.layout.clone();
        let written =
            blocking(move || blobs.iter().try_for_each(|(digest, bytes)| content::write(&layout, digest, bytes)));
        written.await?.map_err(|error| Error::io(format!("cannot store what describes {}", record.id), error))?;
        let kept = record.clone();
        inner.fetcher.catalog.change(move |state| (Change::loaded(state, record, &names), ())).await?;
        records.push(kept);
    }
    Ok(records)
}

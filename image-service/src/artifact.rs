//! OCI artifacts: blobs with names, such as models or data, which pods mount as volumes.
//!
//! An artifact becomes a layer like any other: its blobs are packed into an archive on their way in, files named by their
//! titles, always the same bytes for the same artifact, and unpacked from it. So checks, garbage collection, repair of the
//! store and the list of what the disk is used for know nothing of artifacts. Its ID is the digest of its manifest, as
//! many artifacts share the same empty configuration.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::mpsc;
use tripod_engine::{Error, Kind, Result};

use crate::{
    catalog::Pins,
    digest::{Algorithm, Digest, Hasher},
    error::unpack_kind,
    fetch::{Fetcher, blocking, unpack_into},
    layers::{Layer, Staging},
    manifest::Descriptor,
    progress::{LayerMeter, LayerState},
    registry::{Problem, RegistryError, Session},
    unpack::{Unpacked, chunks},
};

const TITLE: &str = "org.opencontainers.image.title";
/// Stands for content where there is none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Pieces of a download that wait to be unpacked.
const PIECES: usize = 16;
const BLOCK: u64 = 512;
const MAX_PATH: usize = 3840;
const MAX_NAME: usize = 255;
/// How often a layer is fetched that is removed as soon as it is there.
const TRIES: usize = 3;

/// Why an artifact cannot be mounted.
#[derive(Debug, Error)]
pub(crate) enum ArtifactError {
    #[error("it is not valid JSON for an artifact's manifest")]
    Json(#[from] serde_json::Error),
    #[error("it has the title {0:?}, which is no relative path of a file: {1}")]
    Title(String, &'static str),
    #[error("the title {0:?} is there twice, or is a file and a folder at once")]
    Twice(String),
    #[error("it has {0} blobs; the limit is {1} (image.limits.layers)")]
    TooMany(usize, usize),
}

/// What an artifact has, by path; folders are `None`.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    entries: BTreeMap<String, Option<Descriptor>>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

impl Artifact {
    /// Reads a manifest that is known to be no image's.
    pub(crate) fn parse(manifest: &[u8], max: usize) -> Result<Self, ArtifactError> {
        let layers = serde_json::from_slice::<Raw>(manifest)?.layers.unwrap_or_default();
        if layers.len() > max {
            return Err(ArtifactError::TooMany(layers.len(), max));
        }
        let mut entries: BTreeMap<String, Option<Descriptor>> = BTreeMap::new();
        for blob in layers.into_iter().filter(|blob| blob.media_type.as_deref() != Some(EMPTY)) {
            let title = blob.annotations.as_ref().and_then(|annotations| annotations.get(TITLE));
            let path = title.cloned().unwrap_or_else(|| blob.digest.to_string().replace(':', "-"));
            if let Some(wrong) = wrong(&path) {
                return Err(ArtifactError::Title(path, wrong));
            }
            for (slash, _) in path.match_indices('/') {
                if let Some(Some(_)) = entries.insert(path[..slash].to_owned(), None) {
                    return Err(ArtifactError::Twice(path));
                }
            }
            if entries.contains_key(&path) {
                return Err(ArtifactError::Twice(path));
            }
            entries.insert(path, Some(blob));
        }
        Ok(Self { entries })
    }

    /// Bytes of all blobs.
    pub(crate) fn size(&self) -> u64 {
        self.entries.values().flatten().fold(0, |size, blob| size.saturating_add(blob.size))
    }
}

/// What is wrong with a path: whoever can push an artifact can give it any title.
fn wrong(path: &str) -> Option<&'static str> {
    let part = |part: &str| match part {
        "" => Some("a part of it is empty"),
        "." | ".." => Some("a part of it is . or .."),
        part if part.len() > MAX_NAME => Some("a part of it is longer than 255 bytes"),
        part if part.starts_with(".wh.") => Some("in a layer a name with .wh. means that something is removed"),
        _ => None,
    };
    match path {
        path if path.len() > MAX_PATH => Some("it is too long"),
        path if path.chars().any(char::is_control) => Some("it has control characters"),
        path => path.split('/').find_map(part),
    }
}

/// Sees to it that an artifact's layer is in the store, and pins it.
pub(crate) async fn ensure(
    fetcher: &Arc<Fetcher>,
    session: &Arc<Session>,
    id: &Digest,
    artifact: &Artifact,
    meter: &Arc<LayerMeter>,
    pins: &mut Pins,
) -> Result<Arc<Layer>> {
    let known = fetcher.catalog.state().images.get(id).and_then(|record| record.layers.first().cloned());
    let mut wanted = known;
    for _ in 0..TRIES {
        if let Some(diff_id) = wanted.take() {
            pins.add(std::slice::from_ref(&diff_id));
            if let Some(layer) = fetcher.catalog.state().layers.get(&diff_id) {
                meter.set(LayerState::Done);
                return Ok(Arc::clone(layer));
            }
        }
        let work = || {
            let (fetcher, session) = (Arc::clone(fetcher), Arc::clone(session));
            let (artifact, meter) = (artifact.clone(), Arc::clone(meter));
            async move { fetch(&fetcher, &session, &artifact, &meter).await }
        };
        let ticket = fetcher.flights.join(id.clone(), Arc::clone(meter), work);
        match ticket.outcome.await {
            // It is ours only when it is pinned and still there.
            Ok(layer) => wanted = Some(layer.diff_id.clone()),
            // Another pull's credentials, or its lies about a blob, are no reason for this one to fail.
            Err(error) if ticket.first => return Err(error),
            Err(_) => {}
        }
    }
    Err(Error::new(Kind::Unavailable, format!("the files of the artifact {id} are removed again and again")))
}

async fn fetch(
    fetcher: &Arc<Fetcher>,
    session: &Session,
    artifact: &Artifact,
    meter: &Arc<LayerMeter>,
) -> Result<Arc<Layer>> {
    let permit = fetcher.permits.acquire().await.map_err(|error| Error::with(Kind::Internal, "no permit", error))?;
    let (staging, unpacked, diff_id) = stage(fetcher, session, artifact, meter).await?;
    // The next step may wait for somebody who needs one.
    drop(permit);
    let work = || {
        let (fetcher, diff_id) = (Arc::clone(fetcher), diff_id.clone());
        async move {
            if let Some(layer) = fetcher.catalog.state().layers.get(&diff_id) {
                return Ok(Arc::clone(layer));
            }
            let layer = Layer::new(diff_id.clone(), unpacked, &fetcher.boot);
            let layout = fetcher.layout.clone();
            let installed = blocking(move || staging.install(&layout, &layer).map(|()| layer)).await?;
            let layer = Arc::new(installed.map_err(|error| Error::io("cannot move a layer into place", error))?);
            let mut state = fetcher.catalog.state();
            state.layers.insert(diff_id.clone(), Arc::clone(&layer));
            state.kept.insert(diff_id, Instant::now() + fetcher.keep);
            Ok(layer)
        }
    };
    // Not while the same layer is being removed, nor fetched for an image.
    let layer = fetcher.flights.join(diff_id.clone(), Arc::clone(meter), work).outcome.await?;
    meter.set(LayerState::Done);
    Ok(layer)
}

/// Why a blob did not come.
enum Failure {
    /// It is not what its digest says.
    Corrupt(Digest, Error),
    Other(Error),
}

/// From the registry into a staging folder, by another host if one has it wrong.
pub(crate) async fn stage(
    fetcher: &Fetcher,
    session: &Session,
    artifact: &Artifact,
    meter: &LayerMeter,
) -> Result<(Staging, Unpacked, Digest)> {
    loop {
        let (layout, trash) = (fetcher.layout.clone(), fetcher.trash.clone());
        let staging = blocking(move || Staging::new(&layout, &trash)).await?;
        let staging = staging.map_err(|error| Error::io("cannot make a staging folder for an artifact", error))?;
        meter.set(LayerState::Downloading);
        meter.downloaded.store(0, Ordering::Relaxed);
        let (sink, source) = mpsc::channel(PIECES);
        let (decompressor, stream) = chunks(source, Algorithm::Sha256, Algorithm::Sha256, fetcher.limits.layer_bytes);
        // Nothing is compressed here; it is one stage of the stream all the same.
        let passed = tokio::task::spawn_blocking(move || decompressor.run());
        let (limits, objects, floor) = (fetcher.limits, Arc::clone(&fetcher.objects), fetcher.floor.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let result = unpack_into(&staging, stream, &limits, (&objects, &floor));
            (staging, result)
        });
        let sent = send(session, artifact, &sink, meter).await;
        drop(sink);
        meter.set(LayerState::Unpacking);
        let ended = |error| Error::with(Kind::Internal, "the unpacker ended early", error);
        passed.await.map_err(ended)?;
        let (staging, unpacked) = unpacked.await.map_err(ended)?;
        match sent {
            Err(Failure::Corrupt(blob, error)) if session.distrust_senders(&blob) => {
                tracing::warn!(%error, "another host is asked for a blob of an artifact");
                continue;
            }
            Err(Failure::Corrupt(_, error) | Failure::Other(error)) => return Err(error),
            Ok(()) => {}
        }
        let (unpacked, diff_id) =
            unpacked.map_err(|error| Error::with(unpack_kind(&error), "cannot unpack the artifact", error))?;
        return Ok((staging, unpacked, diff_id));
    }
}

/// Packs the blobs, in the order of their paths. Where the unpacker has stopped reading it says itself why.
async fn send(
    session: &Session,
    artifact: &Artifact,
    sink: &mpsc::Sender<Bytes>,
    meter: &LayerMeter,
) -> Result<(), Failure> {
    let packed = |error| Failure::Other(Error::io("cannot pack the artifact", error));
    for (path, blob) in &artifact.entries {
        let size = blob.as_ref().map(|blob| blob.size);
        if sink.send(header(path, size).map_err(packed)?.into()).await.is_err() {
            return Ok(());
        }
        let Some(blob) = blob else { continue };
        if !send_blob(session, blob, sink, meter).await? {
            return Ok(());
        }
        let rest = (BLOCK - blob.size % BLOCK) % BLOCK;
        if sink.send(vec![0; usize::try_from(rest).unwrap_or(0)].into()).await.is_err() {
            return Ok(());
        }
    }
    let _ = sink.send(vec![0; 1024].into()).await;
    Ok(())
}

/// Passes a blob on and verifies it. Gives whether all of it was wanted.
async fn send_blob(
    session: &Session,
    blob: &Descriptor,
    sink: &mpsc::Sender<Bytes>,
    meter: &LayerMeter,
) -> Result<bool, Failure> {
    let (inner, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let offset = AtomicU64::new(0);
    let download = async move {
        let downloaded = session.download(blob, &inner, &offset).await;
        drop(inner);
        downloaded
    };
    let pass = async move {
        let mut hasher = Hasher::new(blob.digest.algorithm());
        while let Some(piece) = pieces.recv().await {
            hasher.update(&piece);
            meter.downloaded.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if sink.send(piece).await.is_err() {
                return None;
            }
        }
        Some(hasher.finish())
    };
    let (downloaded, digest) = tokio::join!(download, pass);
    let Some(got) = digest else { return Ok(false) };
    match downloaded {
        Err(error) if matches!(error.problem, Problem::Length { .. }) => {
            return Err(Failure::Corrupt(blob.digest.clone(), error.into()));
        }
        Err(error) => return Err(Failure::Other(error.into())),
        Ok(()) => {}
    }
    if got != blob.digest {
        let what = format!("cannot use the blob {}", blob.digest);
        let problem = Problem::Digest { got, expected: blob.digest.clone() };
        let error = RegistryError { what, host: session.registry().to_owned(), problem };
        return Err(Failure::Corrupt(blob.digest.clone(), error.into()));
    }
    Ok(true)
}

/// What stands before a file of this size, or a folder, in the archive: nothing of it depends on anything but these.
fn header(path: &str, size: Option<u64>) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(if size.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory });
    header.set_mode(if size.is_some() { 0o644 } else { 0o755 });
    header.set_size(size.unwrap_or(0));
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, path, io::empty())?;
    Ok(archive.get_ref().clone())
}

#[cfg(test)]
mod tests;

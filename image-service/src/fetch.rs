//! Layers on their way into the store: download, decompress, verify twice, unpack, all in one pass.
//!
//! One task waits for the network, two threads work: one decompresses and hashes the blob, one hashes the tar stream and
//! unpacks it. Bounded channels between them hold a few hundred kilobytes a layer, and no compressed copy exists.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, mpsc};
use tripod_engine::{Error, Kind, Result};

use crate::{
    catalog::Catalog,
    config::Limits,
    digest::Digest,
    error::unpack_error,
    figures::{Counters, add},
    flight::{Flights, Ticket},
    layers::{Layer, Staging},
    layout::Layout,
    manifest::Descriptor,
    objects::Objects,
    progress::{LayerMeter, LayerState, PullMeter},
    registry::{Problem, RegistryError, Session},
    room::Floor,
    skeleton::{Recorder, Tap},
    trash::Trash,
    unpack::{IGZIP_FROM, Igzip, TarStream, UnpackError, Unpacked, chunks, unpack_recorded},
};

/// Pieces of a download that wait to be decompressed.
const PIECES: usize = 16;

/// Fetches layers, each once however many pulls want it.
#[derive(Debug)]
pub(crate) struct Fetcher {
    pub catalog: Arc<Catalog>,
    pub counters: Arc<Counters>,
    pub layout: Layout,
    pub trash: Trash,
    /// Files that layers have in common.
    pub objects: Arc<Objects>,
    pub limits: Limits,
    /// What unpacking leaves free.
    pub floor: Floor,
    pub boot: String,
    /// Fetches, and removals too: a layer that is being removed is fetched again only afterwards.
    pub flights: Arc<Flights<Digest, Arc<Layer>, Arc<LayerMeter>>>,
    pub permits: Arc<Semaphore>,
    /// Inflates large layers, where it is installed.
    pub igzip: Option<Igzip>,
    /// How long layers of a failed pull are kept.
    pub keep: Duration,
}

impl Fetcher {
    /// Sees to it that a layer is in the store. Number `index` of the pull's meter shows how far it is. Gives the layer
    /// and whether it was fetched for this call or another one meanwhile.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        session: &Arc<Session>,
        blob: &Descriptor,
        diff_id: &Digest,
        (meter, index): (&PullMeter, usize),
    ) -> Result<Arc<Layer>> {
        loop {
            let own = LayerMeter::of(blob);
            meter.replace(index, Arc::clone(&own));
            if let Some(layer) = self.catalog.state().layers.get(diff_id) {
                own.set(LayerState::Done);
                add(&self.counters.layers_shared, 1);
                return Ok(Arc::clone(layer));
            }
            let work = || {
                let (fetcher, session) = (Arc::clone(self), Arc::clone(session));
                let (blob, diff_id, meter) = (blob.clone(), diff_id.clone(), Arc::clone(&own));
                async move { fetcher.fetch(&session, &blob, &diff_id, &meter).await }
            };
            let Ticket { outcome, watch, first } = self.flights.join(diff_id.clone(), Arc::clone(&own), work);
            meter.replace(index, watch);
            match outcome.await {
                Ok(layer) => {
                    add(if first { &self.counters.layers_fetched } else { &self.counters.layers_shared }, 1);
                    return Ok(layer);
                }
                // Another pull's credentials, or its lies about a blob, are no reason for this one to fail.
                Err(_) if !first => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn fetch(
        &self,
        session: &Session,
        blob: &Descriptor,
        diff_id: &Digest,
        meter: &LayerMeter,
    ) -> Result<Arc<Layer>> {
        let _permit = self.permits.acquire().await.map_err(|error| Error::with(Kind::Internal, "no permit", error))?;
        if let Some(layer) = self.catalog.state().layers.get(diff_id) {
            meter.set(LayerState::Done);
            return Ok(Arc::clone(layer));
        }
        let (staging, unpacked) = self.stage(session, blob, diff_id, meter).await?;
        let layer = Layer::new(diff_id.clone(), unpacked, &self.boot);
        let layout = self.layout.clone();
        let layer = blocking(move || staging.install(&layout, &layer).map(|()| layer)).await?;
        let layer = Arc::new(layer.map_err(|error| Error::io("cannot move a layer into place", error))?);
        let mut state = self.catalog.state();
        state.layers.insert(diff_id.clone(), Arc::clone(&layer));
        state.kept.insert(diff_id.clone(), Instant::now() + self.keep);
        drop(state);
        meter.set(LayerState::Done);
        Ok(layer)
    }

    /// From the registry into a staging folder, by another host if one has it wrong.
    pub(crate) async fn stage(
        &self,
        session: &Session,
        blob: &Descriptor,
        diff_id: &Digest,
        meter: &LayerMeter,
    ) -> Result<(Staging, Unpacked)> {
        loop {
            let (layout, trash) = (self.layout.clone(), self.trash.clone());
            let staging = blocking(move || Staging::new(&layout, &trash)).await?;
            let staging = staging.map_err(|error| Error::io("cannot make a staging folder for a layer", error))?;
            meter.set(LayerState::Downloading);
            let transferred = self.transfer(session, blob, diff_id, meter, staging).await;
            add(&self.counters.downloaded_bytes, meter.downloaded.load(Ordering::Relaxed));
            match transferred {
                Ok(done) => return Ok(done),
                // A mirror that is corrupt is no reason to fail while there is another host that may have it right.
                Err(Failure::Corrupt(error)) if session.distrust_senders(&blob.digest) => {
                    tracing::warn!(%error, "another host is asked for a layer");
                    meter.downloaded.store(0, Ordering::Relaxed);
                }
                Err(Failure::Corrupt(error) | Failure::Other(error)) => return Err(error),
            }
        }
    }

    /// What inflates a blob of this many bytes, unless it is the library.
    pub(crate) fn igzip(&self, size: u64) -> Option<Igzip> {
        self.igzip.clone().filter(|_| size >= IGZIP_FROM)
    }

    /// From the registry into the staging folder.
    async fn transfer(
        &self,
        session: &Session,
        blob: &Descriptor,
        diff_id: &Digest,
        meter: &LayerMeter,
        staging: Staging,
    ) -> std::result::Result<(Staging, Unpacked), Failure> {
        let (sink, source) = mpsc::channel(PIECES);
        let algorithms = (blob.digest.algorithm(), diff_id.algorithm());
        let (decompressor, stream) = chunks(source, algorithms.0, algorithms.1, self.limits.layer_bytes);
        let decompressor = decompressor.with(self.igzip(blob.size));
        let hashed = tokio::task::spawn_blocking(move || decompressor.run());
        let (limits, objects, floor) = (self.limits, Arc::clone(&self.objects), self.floor.counted(meter.written()));
        let unpacked = tokio::task::spawn_blocking(move || {
            let result = unpack_into(&staging, stream, &limits, (&objects, &floor));
            (staging, result)
        });
        let downloaded = session.download(blob, &sink, &meter.downloaded).await;
        drop(sink);
        meter.set(LayerState::Unpacking);
        let blob_digest =
            hashed.await.map_err(|error| Error::with(Kind::Internal, "the decompressor ended early", error))?;
        let (staging, unpacked) =
            unpacked.await.map_err(|error| Error::with(Kind::Internal, "the unpacker ended early", error))?;
        match downloaded {
            Err(error) if matches!(error.problem, Problem::Length { .. }) => {
                return Err(Failure::Corrupt(error.into()));
            }
            Err(error) if !matches!(error.problem, Problem::Abandoned) => return Err(Failure::Other(error.into())),
            _ => {}
        }
        let good = blob_digest.as_ref() == Some(&blob.digest);
        if let Some(got) = blob_digest
            && got != blob.digest
        {
            let what = format!("cannot use the layer {}", blob.digest);
            let problem = Problem::Digest { got, expected: blob.digest.clone() };
            let error = RegistryError { what, host: session.registry().to_owned(), problem };
            return Err(Failure::Corrupt(error.into()));
        }
        let (unpacked, tar_digest) = unpacked.map_err(|error| {
            let ours = matches!(error, UnpackError::Write { .. });
            let error = unpack_error(format!("cannot unpack the layer {}", blob.digest), error);
            // Whether it is the image that is broken or what was sent is open where not all of it was read.
            if good || ours || error.kind() != Kind::Internal { Failure::Other(error) } else { Failure::Corrupt(error) }
        })?;
        if tar_digest != *diff_id {
            let message = format!(
                "the layer {} unpacks to {tar_digest}, but the image's configuration says {diff_id}: the image is \
                 corrupt and must be pushed again",
                blob.digest
            );
            return Err(Error::new(Kind::Internal, message).into());
        }
        meter.downloaded.fetch_max(blob.size, Ordering::Relaxed);
        Ok((staging, unpacked))
    }
}

/// Why a layer did not get into its staging folder.
enum Failure {
    /// What was sent is, or may be, not what was asked for.
    Corrupt(Error),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Unpacks a layer, keeps the skeleton of its archive, and makes the record of its files. Gives the archive's digest, too.
pub(crate) fn unpack_into(
    staging: &Staging,
    stream: TarStream,
    limits: &Limits,
    (objects, floor): (&Objects, &Floor),
) -> std::result::Result<(Unpacked, Digest), UnpackError> {
    let failed =
        |source| UnpackError::Write { step: "keep the archive's skeleton in", path: "skeleton.zst".into(), source };
    let recorder = Recorder::new(staging.folder()).map_err(failed)?;
    let (stream, shared) = (Tap::new(stream, recorder), Some((objects, floor.meter())));
    let (mut unpacked, stream) = unpack_recorded(stream, &staging.fs(), &staging.discard(), limits, shared)?;
    let stream = stream.finish(staging.folder()).map_err(failed)?.map_err(UnpackError::Read)?;
    let digest = stream.finish().map_err(UnpackError::Read)?;
    let failed = |source| UnpackError::Write { step: "record", path: "its files".into(), source };
    staging.record(&mut unpacked, objects).map_err(failed)?;
    objects.changed();
    Ok((unpacked, digest))
}

/// Runs something that blocks on disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::with(Kind::Internal, "a task ended early", error))
}

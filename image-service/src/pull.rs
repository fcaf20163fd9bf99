//! Pulling an image: manifest, configuration, layers, and one durable commit.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;
use tripod_engine::{Error, ImageConfig, Kind, Result};

use crate::{
    artifact::{self, Artifact},
    catalog::{Change, ImageRecord, Pins},
    content,
    digest::Digest,
    error::manifest_kind,
    fetch::blocking,
    flight::Ticket,
    layers::Layer,
    manifest::{ConfigFile, Descriptor, Document, Manifest, ManifestError, RootFs, media_type},
    platform::{Platform, choose},
    policy,
    progress::{LayerMeter, LayerState, PullMeter, PullProgress},
    reference::Reference,
    registry::{Resolved, Session, auth::RegistryAuth},
    room::{self, Form},
    service::Inner,
};

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// Indexes that are looked into for one image.
const MAX_INDEXES: usize = 16;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What to pull, for whom, and who watches.
#[derive(Debug, Default)]
pub struct PullRequest {
    /// Name of the image, as a user writes it.
    pub reference: String,
    /// Credentials, for this pull alone.
    pub auth: Option<RegistryAuth>,
    /// Gets the state of the pull about ten times a second, and at its end.
    pub progress: Option<watch::Sender<PullProgress>>,
}

/// Manifest, index and configuration on their way into the store.
struct Documents {
    /// What the tag points to.
    top: Digest,
    manifest: Manifest,
    config: ConfigFile,
    config_digest: Digest,
    /// With their sizes.
    blobs: Vec<(Digest, u64)>,
    /// What it is if it is no image, and what it has.
    artifact: Option<(String, Artifact)>,
}

impl Documents {
    /// Of something that has no configuration that matters.
    fn artifact(chain: &[Descriptor], blobs: Vec<(Digest, u64)>, kind: String, artifact: Artifact) -> Option<Self> {
        let (top, own) = (chain.first()?.digest.clone(), chain.last()?.clone());
        let config = ConfigFile { os: String::new(), created: None, config: None, rootfs: RootFs { diff_ids: None } };
        let config_digest = own.digest.clone();
        let manifest = Manifest { config: own, layers: Vec::new() };
        Some(Self { top, manifest, config, config_digest, blobs, artifact: Some((kind, artifact)) })
    }
}

/// Pulls an image, or joins a pull of the same name with the same credentials that runs already.
pub(crate) async fn pull(inner: &Arc<Inner>, request: PullRequest) -> Result<Arc<ImageRecord>> {
    let reference: Reference = request.reference.parse()?;
    let PullRequest { auth, progress, .. } = request;
    let key = (reference.to_string(), auth.as_ref().map(RegistryAuth::fingerprint));
    let work = |meter: Arc<PullMeter>| {
        let inner = Arc::clone(inner);
        move || async move {
            let named = reference.to_string();
            let begin = Instant::now();
            let result = run(&inner, &reference, auth.as_ref(), &meter).await;
            inner.fetcher.counters.pulled(result.as_ref().err(), begin.elapsed());
            if let Err(error) = &result {
                if error.kind() == Kind::ResourceExhausted {
                    inner.fetcher.catalog.state().kept.clear();
                }
                inner.sweep.notify_one();
            }
            result.map_err(|error| in_context(error, &named))
        }
    };
    let meter = Arc::new(PullMeter::default());
    let Ticket { outcome, watch: meter, .. } = inner.pulls.join(key, Arc::clone(&meter), work(meter));
    let Some(progress) = progress else { return outcome.await };
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    tokio::pin!(outcome);
    loop {
        tokio::select! {
            result = &mut outcome => {
                progress.send_replace(meter.snapshot());
                return result;
            }
            _ = ticks.tick() => {
                progress.send_if_modified(|shown| {
                    let now = meter.snapshot();
                    let changed = *shown != now;
                    *shown = now;
                    changed
                });
            }
        }
    }
}

/// Kubelet knows an unavailable registry, and an image that may not be used, by the beginning of the message.
fn in_context(error: Error, reference: &str) -> Error {
    let step = format!("cannot pull {reference}");
    match error.kind() {
        _ if policy::is_refusal(&error) => error.during(format!("{}: {step}", policy::SIGNATURE_VALIDATION_FAILED)),
        Kind::Unavailable => error.during(format!("RegistryUnavailable: {step}")),
        _ => error.during(step),
    }
}

async fn run(
    inner: &Arc<Inner>,
    reference: &Reference,
    auth: Option<&RegistryAuth>,
    meter: &Arc<PullMeter>,
) -> Result<Arc<ImageRecord>> {
    policy::admit(inner, reference).await?;
    let session = Arc::new(inner.registries.session(reference, auth)?);
    let mut pins = Pins::new(&inner.fetcher.catalog);
    let documents = documents(inner, &session, reference, &mut pins).await?;
    if let Some((kind, artifact)) = &documents.artifact {
        return pull_artifact(inner, &session, reference, &documents, (kind, artifact), meter, pins).await;
    }
    let diff_ids = documents.config.diff_ids().to_vec();
    pins.add(&diff_ids);
    let blobs = &documents.manifest.layers;
    meter.set(meters(inner, blobs, &diff_ids));
    let _admission = room::admit(inner, meter).await?;
    let layers = all(inner, &session, blobs, &diff_ids, meter).await?;
    let size = layers.iter().map(|layer| layer.unpacked.bytes).sum();
    let record = record(&documents, diff_ids, size);
    let answer = commit(inner, record, reference, &documents.top).await?;
    drop(pins);
    if layers.iter().any(|layer| layer.waits_for_sync()) {
        inner.sync.notify_one();
    }
    Ok(answer)
}

/// Of an image's layers, those done that are here.
fn meters(inner: &Inner, blobs: &[Descriptor], diff_ids: &[Digest]) -> Vec<Arc<LayerMeter>> {
    let state = inner.fetcher.catalog.state();
    let meter = |(blob, diff_id)| {
        let meter = LayerMeter::of(blob);
        if state.layers.contains_key::<Digest>(diff_id) {
            meter.set(LayerState::Done);
        }
        meter
    };
    blobs.iter().zip(diff_ids).map(meter).collect()
}

/// Sees to it that all layers of an image are in the store, side by side.
async fn all(
    inner: &Inner,
    session: &Arc<Session>,
    blobs: &[Descriptor],
    diff_ids: &[Digest],
    meter: &PullMeter,
) -> Result<Vec<Arc<Layer>>> {
    let fetches = blobs.iter().zip(diff_ids).enumerate();
    let mut fetches: FuturesUnordered<_> =
        fetches.map(|(index, (blob, diff_id))| inner.fetcher.ensure(session, blob, diff_id, (meter, index))).collect();
    let (mut layers, mut full) = (Vec::new(), None);
    while let Some(fetched) = fetches.next().await {
        match fetched {
            Ok(layer) => layers.push(layer),
            // The others come to an end first: what they bring would stay where there is no room.
            Err(error) if error.kind() == Kind::ResourceExhausted => full = Some(error),
            Err(error) => return Err(full.unwrap_or(error)),
        }
    }
    full.map_or(Ok(layers), Err)
}

/// Names an image whose layers are in the store.
async fn commit(inner: &Inner, record: ImageRecord, reference: &Reference, top: &Digest) -> Result<Arc<ImageRecord>> {
    let (answer, reference, top) = (Arc::new(record.clone()), reference.clone(), top.clone());
    inner.fetcher.catalog.change(move |state| (Change::pulled(state, record, &reference, &top), ())).await?;
    Ok(answer)
}

/// Fetches what is no image, and keeps it as one that no container can be made from.
async fn pull_artifact(
    inner: &Arc<Inner>,
    session: &Arc<Session>,
    reference: &Reference,
    documents: &Documents,
    (kind, artifact): (&str, &Artifact),
    meter: &Arc<PullMeter>,
    mut pins: Pins,
) -> Result<Arc<ImageRecord>> {
    let (id, size) = (&documents.config_digest, artifact.size());
    let own = LayerMeter::new(id.clone(), size, Form::Files);
    if inner.fetcher.catalog.state().images.contains_key(id) {
        own.set(LayerState::Done);
    }
    meter.set(vec![Arc::clone(&own)]);
    let _admission = room::admit(inner, meter).await?;
    let layer = artifact::ensure(&inner.fetcher, session, id, artifact, &own, &mut pins).await?;
    let record = record(documents, vec![layer.diff_id.clone()], layer.unpacked.bytes);
    let answer =
        commit(inner, ImageRecord { artifact: Some(kind.to_owned()), ..record }, reference, &documents.top).await?;
    drop(pins);
    if layer.waits_for_sync() {
        inner.sync.notify_one();
    }
    Ok(answer)
}

/// Gets what describes the image, from the store where it has it.
async fn documents(inner: &Inner, session: &Session, reference: &Reference, pins: &mut Pins) -> Result<Documents> {
    let mut resolved = resolve(inner, session, reference).await?;
    let top = resolved.digest.clone();
    let mut blobs = Vec::new();
    let bad = |step: String| move |error| Error::with(manifest_kind(&error), step, error);
    // The next to look into is the last; each with how deep it lies.
    let mut candidates: Vec<(usize, Digest)> = Vec::new();
    let (mut depth, mut indexes) = (0, 0);
    // From what was asked for down to what is being looked into.
    let mut chain: Vec<Descriptor> = Vec::new();
    let manifest = loop {
        pins.add(std::slice::from_ref(&resolved.digest));
        blobs.push((resolved.digest.clone(), resolved.bytes.len() as u64));
        chain.truncate(depth);
        let (digest, size) = (resolved.digest.clone(), resolved.bytes.len() as u64);
        let media_type = Some(media_type(&resolved.bytes, &resolved.content_type));
        chain.push(Descriptor { media_type, digest, size, platform: None, annotations: None });
        let step = format!("cannot use the manifest {}", resolved.digest);
        let document = Document::parse(&resolved.bytes, &resolved.content_type, inner.config.limits.layers);
        let artifact = match &document {
            Err(ManifestError::Artifact(kind)) => {
                Some((kind.clone(), Artifact::parse(&resolved.bytes, inner.config.limits.layers)))
            }
            _ => None,
        };
        store(inner, &resolved.digest, resolved.bytes).await?;
        if let Some((kind, artifact)) = artifact {
            policy::check(inner, policy::Subject { session, reference, chain: &chain }).await?;
            let unusable =
                |error| Error::with(Kind::FailedPrecondition, format!("{step}, an artifact of type {kind:?}"), error);
            let artifact = artifact.map_err(unusable)?;
            let described = Documents::artifact(&chain, blobs, kind, artifact);
            return described.ok_or_else(|| Error::new(Kind::Internal, "an artifact without a manifest"));
        }
        match document.map_err(bad(step.clone()))? {
            Document::Image(manifest) => break manifest,
            Document::Index(_) if depth == MAX_DEPTH => {
                return Err(Error::new(Kind::Internal, format!("{step}: indexes are nested deeper than {MAX_DEPTH}")));
            }
            Document::Index(_) if indexes == MAX_INDEXES => {
                let message = format!("{step}: it has more than {MAX_INDEXES} indexes, and no image for this host yet");
                return Err(Error::new(Kind::Internal, message));
            }
            Document::Index(manifests) => {
                indexes += 1;
                let refused = match choose(&manifests, Platform::host()) {
                    Ok(chosen) => {
                        let chosen = chosen.into_iter().take(MAX_INDEXES).collect::<Vec<_>>();
                        let chosen = chosen.into_iter().rev().map(|descriptor| descriptor.digest.clone());
                        candidates.extend(chosen.map(|digest| (depth + 1, digest)));
                        None
                    }
                    Err(error) => Some(bad(step)(error)),
                };
                let Some((deeper, next)) = candidates.pop() else {
                    return Err(refused.unwrap_or_else(|| Error::new(Kind::NotFound, "the index is empty")));
                };
                depth = deeper;
                resolved = by_digest(inner, session, &next).await?;
            }
        }
    };
    policy::check(inner, policy::Subject { session, reference, chain: &chain }).await?;
    let config_digest = manifest.config.digest.clone();
    pins.add(std::slice::from_ref(&config_digest));
    let (layout, digest) = (inner.fetcher.layout.clone(), config_digest.clone());
    let bytes = match blocking(move || content::read(&layout, &digest)).await? {
        Some(bytes) => bytes,
        None => {
            let bytes = session.small_blob(&manifest.config).await?;
            store(inner, &config_digest, bytes.clone()).await?;
            bytes
        }
    };
    blobs.push((config_digest.clone(), bytes.len() as u64));
    let config = ConfigFile::parse(&bytes, &manifest);
    let config = config.map_err(bad(format!("cannot use the configuration {config_digest}")))?;
    Ok(Documents { top, manifest, config, config_digest, blobs, artifact: None })
}

/// What the reference points to. The registry is asked in any case, so that whoever may not pull is told so.
async fn resolve(inner: &Inner, session: &Session, reference: &Reference) -> Result<Resolved> {
    let name = reference.manifest();
    // A name that we have has probably not moved, and its digest is cheaper to ask for than its content.
    let known = inner.fetcher.catalog.state().names.contains_key(&reference.key());
    if known && let Some(digest) = session.head(&name).await? {
        let expected = reference.digest();
        if expected.is_none_or(|expected| *expected == digest) {
            return by_digest(inner, session, &digest).await;
        }
    }
    Ok(session.manifest(&name, reference.digest()).await?)
}

async fn by_digest(inner: &Inner, session: &Session, digest: &Digest) -> Result<Resolved> {
    let (layout, wanted) = (inner.fetcher.layout.clone(), digest.clone());
    if let Some(bytes) = blocking(move || content::read(&layout, &wanted)).await? {
        return Ok(Resolved { digest: digest.clone(), content_type: String::new(), bytes });
    }
    Ok(session.manifest(&digest.to_string(), Some(digest)).await?)
}

async fn store(inner: &Inner, digest: &Digest, bytes: Vec<u8>) -> Result<()> {
    let (layout, name) = (inner.fetcher.layout.clone(), digest.clone());
    let written = blocking(move || content::write(&layout, &name, &bytes)).await?;
    written.map_err(|error| Error::io(format!("cannot store the blob {digest}"), error))
}

fn record(documents: &Documents, layers: Vec<Digest>, size: u64) -> ImageRecord {
    let blobs = documents.blobs.iter().cloned().collect();
    record_of(&documents.config, documents.config_digest.clone(), blobs, layers, size)
}

/// What is remembered of an image.
pub(crate) fn record_of(
    config: &ConfigFile,
    id: Digest,
    blobs: BTreeMap<Digest, u64>,
    layers: Vec<Digest>,
    size: u64,
) -> ImageRecord {
    let process = config.config.clone().unwrap_or_default();
    ImageRecord {
        id,
        blobs,
        layers,
        size,
        created: config.created.clone(),
        config: ImageConfig {
            env: process.env.unwrap_or_default(),
            entrypoint: process.entrypoint.unwrap_or_default(),
            cmd: process.cmd.unwrap_or_default(),
            working_dir: process.working_dir.unwrap_or_default(),
            user: process.user.unwrap_or_default(),
            stop_signal: process.stop_signal.unwrap_or_default(),
        },
        volumes: process.volumes.unwrap_or_default().into_keys().collect(),
        labels: process.labels.unwrap_or_default(),
        artifact: None,
    }
}

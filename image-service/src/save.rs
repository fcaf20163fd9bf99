//! Images into archives: an OCI layout in a tar, and beside it what `docker load` reads, if it is asked for.
//!
//! Compressed layers are not kept, so an archive has the layers as they were before compression: their digests are the
//! diff IDs, and the configurations are the original bytes, so image IDs stay. Manifests are new. All sizes are known
//! before the first byte, from each layer's [skeleton](crate::skeleton), so nothing is buffered and no temporary file is made.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tripod_engine::{Error, Kind, Result};

use crate::{
    catalog::{ImageRecord, Pins},
    content,
    digest::Digest,
    fetch::blocking,
    reference::Reference,
    service::{ImageService, Inner},
    skeleton::{Archive, SkeletonError},
};

/// Bytes that are handed on at a time, and how many such pieces may wait.
const PIECE: usize = 512 << 10;
const PIECES: usize = 4;
const BLOCK: u64 = 512;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an archive has beside the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI layout.
    Oci,
    /// The same with `manifest.json`, so that `docker load` takes it, old ones too.
    Docker,
}

/// An archive on its way out.
#[derive(Debug)]
pub struct SavedArchive {
    /// Bytes of it.
    pub size: u64,
    /// The bytes, in order, in pieces of at most 512 KiB. An error is the last.
    pub bytes: mpsc::Receiver<Result<Bytes>>,
}

/// One image of an archive.
struct Saved {
    record: Arc<ImageRecord>,
    /// Full names with tags.
    names: Vec<Reference>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

/// All that an archive has.
struct Plan {
    documents: Vec<(String, Vec<u8>)>,
    layers: Vec<(Digest, Archive)>,
}

impl ImageService {
    /// Writes images into an archive, under the names by which they are given here: an ID is no name. What is missing for
    /// it is an error before the first byte.
    pub async fn save(&self, images: Vec<String>, format: ArchiveFormat) -> Result<SavedArchive> {
        let inner = Arc::clone(&self.inner);
        let prepared = blocking(move || {
            let mut pins = Pins::new(&inner.fetcher.catalog);
            plan(&inner, &images, format, &mut pins).map(|plan| (plan, pins))
        });
        let (plan, pins) = prepared.await??;
        let size = plan.size();
        let (sink, bytes) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let mut writer = Writer { sink, buffer: BytesMut::with_capacity(PIECE) };
            if let Err(error) = plan.write(&mut writer) {
                // Nobody hears it if it is because nobody listens.
                let _ = writer.sink.blocking_send(Err(error));
            }
            drop(pins);
        });
        Ok(SavedArchive { size, bytes })
    }
}

fn plan(inner: &Inner, specs: &[String], format: ArchiveFormat, pins: &mut Pins) -> Result<Plan> {
    let mut images: BTreeMap<Digest, Saved> = BTreeMap::new();
    for spec in specs {
        let failed = |why: String| Error::new(Kind::FailedPrecondition, format!("cannot save {spec}: {why}"));
        let record = {
            let state = inner.fetcher.catalog.state();
            let found = state.find(spec).and_then(|found| state.images.get(found.id())).cloned();
            found.ok_or_else(|| {
                Error::new(Kind::NotFound, format!("image {spec:?} is not on this node: pull it first"))
            })?
        };
        if let Some(kind) = &record.artifact {
            return Err(failed(format!("it is an artifact of type {kind:?}, and no image")));
        }
        pins.add(&record.layers);
        pins.add(std::slice::from_ref(&record.id));
        let is_name = || inner.fetcher.catalog.state().names.get(&spec.parse::<Reference>().ok()?.key()).cloned();
        let name = is_name().filter(|named| *named == record.id).and_then(|_| spec.parse::<Reference>().ok());
        let saved = match images.entry(record.id.clone()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                let config = content::read(&inner.fetcher.layout, &record.id)
                    .ok_or_else(|| failed("its configuration is missing: pull it again".into()))?;
                new.insert(Saved { record, names: Vec::new(), config, manifest: Vec::new() })
            }
        };
        saved.names.extend(name.filter(|name| name.tagged().is_some()));
    }
    let mut layers: Vec<(Digest, Archive)> = Vec::new();
    for saved in images.values_mut() {
        let mut blobs = Vec::new();
        for diff_id in &saved.record.layers {
            let known = layers.iter().find(|(layer, _)| layer == diff_id).map(|(_, archive)| archive.size());
            let size = match known {
                Some(size) => size,
                None => {
                    let archive = Archive::open(&inner.fetcher.layout.layer(diff_id));
                    let archive = archive.map_err(|error| layer_failed(diff_id, error))?;
                    let size = archive.size();
                    layers.push((diff_id.clone(), archive));
                    size
                }
            };
            blobs.push(descriptor(LAYER, diff_id, size));
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": blobs,
            "config": descriptor(CONFIG, &saved.record.id, saved.config.len() as u64),
        });
        saved.manifest = manifest.to_string().into_bytes();
    }
    Ok(Plan { documents: documents(images.into_values().collect(), format), layers })
}

/// What describes the images, by path, the first to be read first.
fn documents(images: Vec<Saved>, format: ArchiveFormat) -> Vec<(String, Vec<u8>)> {
    let mut manifests = Vec::new();
    for Saved { manifest, names, .. } in &images {
        let digest = Digest::of(manifest);
        let entry = |annotations: Option<Value>| {
            let mut entry = descriptor(MANIFEST, &digest, manifest.len() as u64);
            if let Some(annotations) = annotations {
                entry["annotations"] = annotations;
            }
            entry
        };
        if names.is_empty() {
            manifests.push(entry(None));
        }
        for name in names {
            manifests.push(entry(Some(json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag(),
            }))));
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let mut documents = vec![
        ("oci-layout".to_owned(), json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ];
    if format == ArchiveFormat::Docker {
        let entry = |saved: &Saved| {
            json!({
                "Config": blob_path(&saved.record.id),
                "RepoTags": saved.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "Layers": saved.record.layers.iter().map(blob_path).collect::<Vec<_>>(),
            })
        };
        let all: Vec<Value> = images.iter().map(entry).collect();
        documents.push(("manifest.json".to_owned(), Value::from(all).to_string().into_bytes()));
    }
    for Saved { record, config, manifest, .. } in images {
        documents.push((blob_path(&Digest::of(&manifest)), manifest));
        documents.push((blob_path(&record.id), config));
    }
    documents
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replacen(':', "/", 1))
}

fn layer_failed(diff_id: &Digest, error: SkeletonError) -> Error {
    let kind = match &error {
        SkeletonError::Sink(_) => Kind::Unavailable,
        _ => Kind::FailedPrecondition,
    };
    let remedy = match &error {
        SkeletonError::Absent => ": remove the images that have it and pull them again",
        SkeletonError::Changed { .. } | SkeletonError::Digest { .. } | SkeletonError::File { .. } => {
            ": it was changed in the store, or its archive has a name twice; its registry still has the original"
        }
        SkeletonError::Damaged { .. } | SkeletonError::Sink(_) => "",
    };
    Error::with(kind, format!("cannot save the layer {diff_id}{remedy}"), error)
}

impl Plan {
    fn size(&self) -> u64 {
        let padded = |size: u64| BLOCK + size.next_multiple_of(BLOCK);
        let documents: u64 = self.documents.iter().map(|(_, bytes)| padded(bytes.len() as u64)).sum();
        let layers: u64 = self.layers.iter().map(|(_, archive)| padded(archive.size())).sum();
        documents + layers + 2 * BLOCK
    }

    fn write(self, writer: &mut Writer) -> Result<()> {
        let failed = |error| Error::io("cannot write the archive", error);
        for (path, bytes) in &self.documents {
            let size = bytes.len() as u64;
            writer.header(path, size).map_err(failed)?;
            writer.put(bytes).map_err(failed)?;
            writer.pad(size).map_err(failed)?;
        }
        for (diff_id, archive) in &self.layers {
            writer.header(&blob_path(diff_id), archive.size()).map_err(failed)?;
            archive.write(diff_id, writer).map_err(|error| layer_failed(diff_id, error))?;
            writer.pad(archive.size()).map_err(failed)?;
        }
        writer.put(&[0; 2 * BLOCK as usize]).and_then(|()| writer.hand_on()).map_err(failed)
    }
}

/// Gathers bytes into pieces.
struct Writer {
    sink: mpsc::Sender<Result<Bytes>>,
    buffer: BytesMut,
}

impl Writer {
    fn header(&mut self, path: &str, size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(path)?;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0);
        self.put(&[0; BLOCK as usize][..padding])
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = bytes.len().min(PIECE - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.buffer.len() == PIECE {
                self.hand_on()?;
            }
        }
        Ok(())
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(PIECE)).freeze();
        self.sink.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

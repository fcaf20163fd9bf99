//! Reading an archive: documents into memory, layers into the store.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, BufReader, Read},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use tokio::{runtime::Handle, sync::mpsc};
use tripod_engine::{Error, Kind};

use super::{LoadError, adopt::adopt, shown};
use crate::{
    catalog::Pins,
    content,
    digest::{Algorithm, Digest},
    fetch::unpack_into,
    figures::add,
    layers::{Layer, Staging},
    manifest::Document,
    progress::{LayerMeter, PullMeter},
    room::{self, Form},
    service::Inner,
    unpack::{
        UnpackError,
        archive::{Archive, Entry, Kind as EntryKind},
        chunks, take,
        tree::{clean, split},
    },
};

/// Entries of an archive: an image has a few files for each layer at most.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of all documents together.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Pieces that wait to be decompressed.
const PIECES: usize = 16;
const PIECE: usize = 256 << 10;
const BLOCK: usize = 512;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What was in an archive, by path.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub documents: HashMap<Vec<u8>, Vec<u8>>,
    pub others: HashMap<Vec<u8>, Other>,
    links: HashMap<Vec<u8>, Vec<u8>>,
}

/// What is no document.
#[derive(Debug)]
pub(super) enum Other {
    /// A layer, in the store under this diff ID.
    Layer(Digest),
    /// Neither, and why.
    Odd(String),
}

impl Contents {
    /// Where a path leads: old archives have a layer once and links to it.
    pub(super) fn resolve<'a>(&'a self, mut path: &'a [u8]) -> &'a [u8] {
        for _ in 0..16 {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        path
    }
}

/// The archive's bytes, as they come in.
struct Incoming {
    source: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        take(self, buffer)
    }
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.source.blocking_recv() {
                Some(bytes) => self.current = bytes?,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}

/// Sees through a compression of the whole archive.
fn plain(mut incoming: Incoming) -> io::Result<Box<dyn BufRead>> {
    let mut start = Vec::new();
    while start.len() < 4 {
        let piece = incoming.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        start.extend_from_slice(piece);
        let length = piece.len();
        incoming.consume(length);
    }
    incoming.current = Bytes::from(start.clone());
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(PIECE, MultiGzDecoder::new(incoming))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Box::new(BufReader::with_capacity(PIECE, zstd::Decoder::with_buffer(incoming)?))
        }
        _ => Box::new(incoming),
    })
}

/// Reads all of an archive. Layers that were new are held by `pins`.
pub(super) fn read(
    inner: &Arc<Inner>,
    archive: mpsc::Receiver<io::Result<Bytes>>,
    pins: &mut Pins,
) -> Result<Contents, LoadError> {
    let incoming = Incoming { source: archive, current: Bytes::new() };
    let mut archive = Archive::new(plain(incoming).map_err(LoadError::Read)?);
    let mut intake = Intake { inner, pins, known: known(inner), documents: 0, contents: Contents::default() };
    let mut seen = HashSet::new();
    while let Some(entry) = archive.next().map_err(broken)? {
        let path = clean(&entry.path).map_err(LoadError::Archive)?;
        if seen.len() >= MAX_ENTRIES {
            return Err(LoadError::entry(&path, format!("the archive has more than {MAX_ENTRIES} entries")));
        }
        if matches!(entry.kind, EntryKind::Directory) {
            continue;
        }
        if !seen.insert(path.clone()) {
            return Err(LoadError::entry(&path, "it is there twice"));
        }
        intake.entry(&mut archive, &entry, path)?;
    }
    Ok(intake.contents)
}

fn broken(error: UnpackError) -> LoadError {
    match error {
        UnpackError::Read(error) => LoadError::Read(error),
        error => LoadError::Archive(error),
    }
}

/// Diff IDs of the compressed layers of images that are here: those need not be read again.
fn known(inner: &Inner) -> HashMap<Digest, Digest> {
    let images: Vec<_> = inner.fetcher.catalog.state().images.values().cloned().collect();
    let mut known = HashMap::new();
    for image in images {
        for blob in image.blobs.keys().filter(|blob| **blob != image.id) {
            let Some(bytes) = content::read(&inner.fetcher.layout, blob) else { continue };
            if let Ok(Document::Image(manifest)) = Document::parse(&bytes, "", inner.config.limits.layers)
                && manifest.layers.len() == image.layers.len()
            {
                known.extend(manifest.layers.into_iter().map(|layer| layer.digest).zip(image.layers.iter().cloned()));
            }
        }
    }
    known
}

struct Intake<'a> {
    inner: &'a Arc<Inner>,
    pins: &'a mut Pins,
    known: HashMap<Digest, Digest>,
    documents: u64,
    contents: Contents,
}

impl Intake<'_> {
    fn entry(&mut self, archive: &mut Archive<impl BufRead>, entry: &Entry, path: Vec<u8>) -> Result<(), LoadError> {
        match entry.kind {
            EntryKind::File => {}
            EntryKind::Symlink | EntryKind::HardLink => {
                let mut target = Vec::new();
                if entry.kind == EntryKind::Symlink {
                    target.extend_from_slice(split(&path).0);
                    target.push(b'/');
                }
                target.extend_from_slice(&entry.link);
                let target = clean(&target).map_err(|_| LoadError::entry(&path, "it leads out of the archive"))?;
                self.contents.links.insert(path, target);
                return Ok(());
            }
            _ => return Err(LoadError::entry(&path, "archives of images have files, folders and links only")),
        }
        let digest = named(&path);
        if let Some(layer) = self.present(&path, digest.as_ref()) {
            self.contents.others.insert(path, Other::Layer(layer));
            return Ok(());
        }
        let mut start = Vec::new();
        while start.len() < BLOCK {
            let piece = archive.content().map_err(broken)?;
            if piece.is_empty() {
                break;
            }
            let count = piece.len().min(BLOCK - start.len());
            start.extend_from_slice(&piece[..count]);
            archive.consume(count);
        }
        if matches!(start.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return self.document(archive, entry.size, path, digest.as_ref(), start);
        }
        let other = if is_layer(&start) {
            self.layer(archive, entry.size, &path, digest.as_ref(), start)?
        } else {
            Other::Odd("it is neither JSON nor a layer".into())
        };
        self.contents.others.insert(path, other);
        Ok(())
    }

    /// The diff ID of a layer that is in the store, if an entry's name says that it is one.
    fn present(&mut self, path: &[u8], digest: Option<&Digest>) -> Option<Digest> {
        let stem = || {
            let name = std::str::from_utf8(split(path).1).ok()?;
            format!("sha256:{}", name.strip_suffix(".tar")?).parse().ok()
        };
        let named = digest.cloned().or_else(stem)?;
        let layer = self.known.get(&named).unwrap_or(&named).clone();
        let is_here = |pins: &mut Pins| {
            pins.add(std::slice::from_ref(&layer));
            self.inner.fetcher.catalog.state().layers.contains_key(&layer)
        };
        // Looked at once before, because a pin for each blob would be many.
        let maybe = self.inner.fetcher.catalog.state().layers.contains_key(&layer);
        (maybe && is_here(self.pins)).then_some(layer)
    }

    fn document(
        &mut self,
        archive: &mut Archive<impl BufRead>,
        size: u64,
        path: Vec<u8>,
        digest: Option<&Digest>,
        start: Vec<u8>,
    ) -> Result<(), LoadError> {
        let limit = self.inner.config.limits.config_bytes.max(self.inner.config.limits.manifest_bytes);
        if size > limit {
            let why = format!("it is larger than {limit} bytes, which is the limit for manifests and configurations");
            self.contents.others.insert(path, Other::Odd(why));
            return Ok(());
        }
        self.documents += size;
        if self.documents > MAX_DOCUMENTS {
            return Err(LoadError::entry(&path, format!("all documents have more than {MAX_DOCUMENTS} bytes")));
        }
        let mut bytes = start;
        loop {
            let piece = archive.content().map_err(broken)?;
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(piece);
            let count = piece.len();
            archive.consume(count);
        }
        if let Some(digest) = digest
            && !digest.matches(&bytes)
        {
            return Err(LoadError::entry(&path, "its content does not have the digest that its name says"));
        }
        self.contents.documents.insert(path, bytes);
        Ok(())
    }

    /// Unpacks an entry. What is wrong with it matters only if an image needs it, unless it is the store that failed.
    fn layer(
        &mut self,
        archive: &mut Archive<impl BufRead>,
        size: u64,
        path: &[u8],
        digest: Option<&Digest>,
        start: Vec<u8>,
    ) -> Result<Other, LoadError> {
        let fetcher = &self.inner.fetcher;
        let failed = |step: &str| {
            let step = format!("entry {:?}: cannot {step}", shown(path));
            move |error| LoadError::Store(Error::io(step, error))
        };
        let handle = Handle::current();
        let form = if start.starts_with(&GZIP) || start.starts_with(&ZSTD) { Form::Compressed } else { Form::Archive };
        let meter = LayerMeter::new(digest.cloned().unwrap_or_else(|| Digest::of(path)), size, form);
        let all = Arc::new(PullMeter::default());
        all.set(vec![Arc::clone(&meter)]);
        let _admission = handle.block_on(room::admit(self.inner, &all))?;
        let permit = handle.block_on(fetcher.permits.acquire());
        let _permit = permit.map_err(|error| Error::with(Kind::Internal, "no permit", error))?;
        let staging = Staging::new(&fetcher.layout, &fetcher.trash).map_err(failed("make a staging folder"))?;
        let (sink, source) = mpsc::channel(PIECES);
        let algorithm = digest.map_or(Algorithm::Sha256, Digest::algorithm);
        let (decompressor, stream) = chunks(source, algorithm, Algorithm::Sha256, fetcher.limits.layer_bytes);
        let decompressor = decompressor.with(fetcher.igzip(size));
        let (fed, got, unpacked) = std::thread::scope(|scope| {
            let hashed = scope.spawn(move || decompressor.run());
            let unpacked =
                scope.spawn(|| unpack_into(&staging, stream, &fetcher.limits, (&fetcher.objects, &fetcher.floor)));
            let fed = feed(archive, start, &sink, &meter);
            drop(sink);
            (fed, hashed.join(), unpacked.join())
        });
        fed.map_err(broken)?;
        let ended = |_| LoadError::entry(path, "a thread that unpacked it ended early");
        let (got, unpacked) = (got.map_err(ended)?, unpacked.map_err(ended)?);
        if let (Some(got), Some(digest)) = (&got, digest)
            && got != digest
        {
            return Err(LoadError::entry(path, format!("its content has the digest {got}")));
        }
        let (unpacked, diff_id) = match unpacked {
            Ok(unpacked) => unpacked,
            Err(source @ (UnpackError::Write { .. } | UnpackError::Limit { .. } | UnpackError::Full { .. })) => {
                return Err(LoadError::Unpack { entry: shown(path), source });
            }
            Err(error) => return Ok(Other::Odd(chain(&error))),
        };
        self.pins.add(std::slice::from_ref(&diff_id));
        let layer = Layer::new(diff_id.clone(), unpacked, &fetcher.boot);
        handle.block_on(adopt(fetcher, staging, layer))?;
        Ok(Other::Layer(diff_id))
    }
}

/// Hands an entry's content on, for as long as somebody wants it.
fn feed(
    archive: &mut Archive<impl BufRead>,
    start: Vec<u8>,
    sink: &mpsc::Sender<Bytes>,
    meter: &LayerMeter,
) -> Result<(), UnpackError> {
    if sink.blocking_send(start.into()).is_err() {
        return Ok(());
    }
    loop {
        let piece = archive.content()?;
        let piece = Bytes::copy_from_slice(&piece[..piece.len().min(PIECE)]);
        if piece.is_empty() {
            return Ok(());
        }
        archive.consume(piece.len());
        add(&meter.downloaded, piece.len() as u64);
        if sink.blocking_send(piece).is_err() {
            return Ok(());
        }
    }
}

/// The digest that a blob's path is.
fn named(path: &[u8]) -> Option<Digest> {
    let (algorithm, hex) = std::str::from_utf8(path).ok()?.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Whether a file begins as layers do: with a compression, the header of a tar archive, or the end of an empty one.
fn is_layer(start: &[u8]) -> bool {
    match start {
        compressed if compressed.starts_with(&GZIP) || compressed.starts_with(&ZSTD) => true,
        block if block.len() == BLOCK => {
            let header = tar::Header::from_byte_slice(block);
            let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
            block.iter().all(|byte| *byte == 0) || header.cksum().is_ok_and(|stored| stored == sum + 8 * 32)
        }
        short => short.is_empty(),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;

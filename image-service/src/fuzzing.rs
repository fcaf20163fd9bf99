//! What is fuzzed: all that reads what a registry sends. Not part of the program: this is compiled by cargo-fuzz, and by
//! the tests, which run the committed inputs through the same functions.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what is wrong must end in a panic")]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "nobody else calls these")]

mod hostile;
mod sandbox;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    config::Limits,
    digest::{Algorithm, Digest},
    manifest::{ConfigFile, Document, Manifest},
    platform::{Platform, choose},
    reference::Reference,
    unpack::chunks,
};
use sandbox::Sandbox;

/// Small, so that they are reached.
const LIMITS: Limits =
    Limits { manifest_bytes: 4 << 20, config_bytes: 8 << 20, layers: 20, layer_bytes: 1 << 20, layer_entries: 200 };

/// Any bytes for the unpacker, as a registry could send them. The first byte says in which pieces they come, and whether
/// the checksums of what looks like a tar header are put right before, without which mutations would get nowhere.
pub fn layer(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if first & 1 == 1 {
        mend(&mut bytes);
    }
    unpack_blob(&bytes, usize::from(*first) * 16 + 1);
}

/// Archives made of entries that are hostile each, and more so together: the bytes choose.
pub fn entries(data: &[u8]) {
    let sandbox = Sandbox::new();
    let archive = hostile::archive(data, &sandbox);
    sandbox.unpack(&archive[..], &LIMITS);
}

/// A manifest or an index, a zero byte, and the configuration that belongs to it.
pub fn manifest(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == 0);
    let (document, config) = split.map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    match Document::parse(document, "", LIMITS.layers) {
        Ok(Document::Image(manifest)) => {
            assert!(manifest.layers.len() <= LIMITS.layers);
            configuration(config, &manifest);
        }
        Ok(Document::Index(manifests)) => match choose(&manifests, Platform::host()) {
            Ok(chosen) => assert!(!chosen.is_empty() && chosen.len() <= manifests.len()),
            Err(error) => assert!(error.to_string().len() < 4 << 20),
        },
        Err(error) => drop(error.to_string()),
    }
}

fn configuration(bytes: &[u8], manifest: &Manifest) {
    match ConfigFile::parse(bytes, manifest) {
        Ok(config) => assert_eq!(config.diff_ids().len(), manifest.layers.len()),
        Err(error) => drop(error.to_string()),
    }
}

/// What hangs at an image, and may say that it is signed: a bundle, and after a zero byte a list or a manifest by which
/// bundles are found. Nothing of that is signed by the key that is asked for.
pub fn bundle(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == 0);
    let (bundle, found) = split.map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    crate::policy::hostile::bundle(bundle);
    crate::policy::hostile::found(found);
}

/// A reference that is understood must be the same when it is read once more, and safe in a URL's path.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Reference>() {
        Ok(reference) => {
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            assert_eq!(reference.key().parse::<Reference>().unwrap().name(), reference.name());
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
            assert!(reference.repository().bytes().all(safe), "{text:?}");
            assert!(reference.repository().split('/').all(|part| !part.is_empty() && part != ".."), "{text:?}");
            assert!(!reference.registry().contains(['/', '@', '?', '#', '%', '\\']), "{text:?}");
        }
        Err(error) => assert!(error.to_string().len() < 4096),
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

/// Through both threads' work, in pieces of this size.
fn unpack_blob(blob: &[u8], piece: usize) {
    let pieces: Vec<Bytes> = blob.chunks(piece).map(Bytes::copy_from_slice).collect();
    let (sink, source) = mpsc::channel(pieces.len().max(1));
    pieces.into_iter().for_each(|piece| sink.try_send(piece).unwrap());
    drop(sink);
    let (decompressor, stream) = chunks(source, Algorithm::Sha256, Algorithm::Sha256, LIMITS.layer_bytes);
    let hashed = std::thread::spawn(move || decompressor.run());
    let sandbox = Sandbox::new();
    let rest = sandbox.unpack(stream, &LIMITS).map(crate::unpack::TarStream::finish);
    let digest = hashed.join().unwrap();
    if matches!(rest, Some(Ok(_))) {
        assert_eq!(digest, Some(Digest::of(blob)), "a layer was unpacked whose blob was not read to its end");
    }
}

/// Puts the checksums right of all blocks that call themselves tar headers.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

#[cfg(test)]
mod tests;

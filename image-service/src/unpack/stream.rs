//! From downloaded pieces to a tar stream, in two threads: one decompresses, one hashes and unpacks.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc;

use super::igzip::Igzip;
use crate::digest::{Algorithm, Digest, Hasher};

const CHUNK: usize = 256 << 10;
/// Chunks between the two threads: enough to even out small files, little enough to stay in the cache.
const CHUNKS: usize = 6;
/// Bits of the window that a zstd frame may want: 128 MiB, as much as `zstd -d` gives without being asked.
const MAX_WINDOW: u32 = 27;

/// Reads from what is buffered already: `Read::read` of whatever can do `BufRead`.
pub(crate) fn take(source: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let available = source.fill_buf()?;
    let count = available.len().min(buffer.len());
    buffer[..count].copy_from_slice(&available[..count]);
    source.consume(count);
    Ok(count)
}

/// Downloaded bytes, hashed as they pass.
struct Blob {
    source: mpsc::Receiver<Bytes>,
    current: Bytes,
    hasher: Hasher,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        take(self, buffer)
    }
}

impl BufRead for Blob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty()
            && let Some(bytes) = self.source.blocking_recv()
        {
            self.hasher.update(&bytes);
            self.current = bytes;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}

/// The first thread's work.
pub(crate) struct Decompressor {
    blob: Blob,
    igzip: Option<Igzip>,
    sink: SyncSender<io::Result<Vec<u8>>>,
    used: Receiver<Vec<u8>>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressor")
    }
}

impl Decompressor {
    /// Leaves gzip to this program, if there is one.
    pub(crate) fn with(self, igzip: Option<Igzip>) -> Self {
        Self { igzip, ..self }
    }

    /// Decompresses all there is and gives the digest of the compressed form, or `None` if the reader stopped before
    /// all was read. Errors of decompression go to the reader, and the rest is hashed all the same.
    pub(crate) fn run(self) -> Option<Digest> {
        let Self { mut blob, igzip, sink, used } = self;
        if let Err(error) = decompress(&mut blob, igzip.as_ref(), &sink, &used) {
            let gone = error.kind() == io::ErrorKind::BrokenPipe;
            if gone || sink.send(Err(error)).is_err() {
                return None;
            }
        }
        drop(sink);
        while blob.fill_buf().is_ok_and(|rest| !rest.is_empty()) {
            let rest = blob.current.len();
            blob.consume(rest);
        }
        Some(blob.hasher.finish())
    }
}

fn decompress(
    blob: &mut Blob,
    igzip: Option<&Igzip>,
    sink: &SyncSender<io::Result<Vec<u8>>>,
    used: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    // A first piece may be shorter than a magic number.
    let mut start = blob.fill_buf()?.to_vec();
    while start.len() < 4 {
        let length = blob.current.len();
        blob.consume(length);
        let more = blob.fill_buf()?;
        if more.is_empty() {
            break;
        }
        start.extend_from_slice(more);
        blob.current = Bytes::from(start.clone());
    }
    blob.current = Bytes::from(start.clone());
    match start.as_slice() {
        [0x1f, 0x8b, ..] => match igzip.map(|igzip| (igzip, igzip.start())) {
            Some((igzip, Ok(child))) => igzip.inflate(child, blob, sink, used),
            _ => copy(MultiGzDecoder::new(blob), sink, used),
        },
        // A frame, or one that is to be skipped.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
            decoder.window_log_max(MAX_WINDOW)?;
            copy(decoder, sink, used)
        }
        [b'B', b'Z', b'h', ..] | [0xfd, b'7', b'z', b'X', ..] => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "its compression (bzip2 or xz) is not one that images may have",
        )),
        _ => copy(blob, sink, used),
    }
}

/// Reads whole chunks into buffers that come back from the other thread.
pub(super) fn copy(
    mut from: impl Read,
    sink: &SyncSender<io::Result<Vec<u8>>>,
    used: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut buffer = used.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        buffer.resize(CHUNK, 0);
        let mut length = 0;
        while length < CHUNK {
            match from.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if length == 0 {
            return Ok(());
        }
        buffer.truncate(length);
        if sink.send(Ok(buffer)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

/// The second thread's input: the tar stream, hashed as it passes, limited in size.
pub(crate) struct TarStream {
    source: Receiver<io::Result<Vec<u8>>>,
    back: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    hasher: Hasher,
    left: u64,
}

impl std::fmt::Debug for TarStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TarStream")
    }
}

/// Marks the error of a stream that is longer than allowed.
pub(crate) const TOO_LARGE: io::ErrorKind = io::ErrorKind::FileTooLarge;

impl TarStream {
    /// Reads what follows the archive, which is part of the digest, and gives the digest.
    pub(crate) fn finish(mut self) -> io::Result<Digest> {
        loop {
            let rest = self.fill_buf()?.len();
            if rest == 0 {
                return Ok(self.hasher.finish());
            }
            self.consume(rest);
        }
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        take(self, buffer)
    }
}

impl BufRead for TarStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() {
            let used = std::mem::take(&mut self.current);
            self.position = 0;
            if used.capacity() > 0 {
                // With enough of them about, a buffer may go.
                let _ = self.back.try_send(used);
            }
            if let Ok(chunk) = self.source.recv() {
                let chunk = chunk?;
                self.left = self.left.checked_sub(chunk.len() as u64).ok_or(TOO_LARGE)?;
                self.hasher.update(&chunk);
                self.current = chunk;
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.current.len());
    }
}

/// Both ends of the way from a download to a tar stream of at most `limit` bytes.
pub(crate) fn chunks(
    source: mpsc::Receiver<Bytes>,
    blob: Algorithm,
    tar: Algorithm,
    limit: u64,
) -> (Decompressor, TarStream) {
    let (sink, chunks) = sync_channel(CHUNKS);
    let (back, used) = sync_channel(CHUNKS + 2);
    let blob = Blob { source, current: Bytes::new(), hasher: Hasher::new(blob) };
    let stream =
        TarStream { source: chunks, back, current: Vec::new(), position: 0, hasher: Hasher::new(tar), left: limit };
    (Decompressor { blob, igzip: None, sink, used }, stream)
}

#[cfg(test)]
mod tests;

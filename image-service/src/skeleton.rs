//! The skeleton of a layer's archive, `layers/HEX/skeleton.zst`: what the unpacked layer no longer has of it. From it and
//! the layer's files the archive comes back, byte for byte, to be saved, or to be hashed to see whether it is the same.
//!
//! The file is one zstd frame with a checksum. In it is [`MAGIC`], then pieces in the order of the archive. Each begins
//! with a byte for its kind; numbers are little endian:
//!
//! * `L`, length (u32), bytes: headers, padding, and whatever else became no file.
//! * `F`, length of the path (u16), offset, length (u64 each), CRC-32 of the content (u32), path: that part of the
//!   content of that file in the layer.
//! * `E`, bytes of the whole archive (u64): the end.
//!
//! Contents have no digest of their own: the archive's, which is the layer's name, proves them all, and the CRC says which
//! file it was. A pull pays for one CRC and for compressing the headers, 1 % of its time (docs/images.md).

mod restore;

use std::{
    fs::File,
    io::{self, BufRead, Read, Write},
    path::Path,
};

pub(crate) use restore::{Archive, SkeletonError};

use crate::unpack::take;

/// Its file name.
const SKELETON: &str = "skeleton.zst";
const MAGIC: &[u8] = b"tripod layer skeleton 1\n";
const LITERAL: u8 = b'L';
const FILE: u8 = b'F';
const END: u8 = b'E';
/// Bytes of one piece that is no file.
const MAX_LITERAL: usize = 64 << 10;
const MAX_PATH: usize = 4096;
/// Bytes of all pieces that are no files. An archive with more has content where nobody can see it, and is not kept.
const MAX_LITERALS: u64 = 8 << 30;
/// Headers are mostly zeros: the quickest level packs them to a twentieth.
const LEVEL: i32 = 1;

/// Writes a skeleton while its archive is unpacked.
pub(crate) struct Recorder {
    sink: zstd::Encoder<'static, File>,
    literal: Vec<u8>,
    literals: u64,
    file: Option<Content>,
    total: u64,
    /// The first thing that went wrong. Reading goes on, and the end says it.
    failed: Option<io::Error>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

/// Content on its way into a file.
struct Content {
    path: Vec<u8>,
    offset: u64,
    length: u64,
    crc: flate2::Crc,
}

impl Recorder {
    /// Begins one in a layer's folder.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        let mut sink = zstd::Encoder::new(File::create_new(folder.join(SKELETON))?, LEVEL)?;
        sink.include_checksum(true)?;
        sink.write_all(MAGIC)?;
        Ok(Self { sink, literal: Vec::new(), literals: 0, file: None, total: 0, failed: None })
    }

    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if let Some(content) = &mut self.file {
            content.length += bytes.len() as u64;
            content.crc.update(bytes);
            return;
        }
        self.literals += bytes.len() as u64;
        for part in bytes.chunks(MAX_LITERAL) {
            if self.literal.len() + part.len() > MAX_LITERAL {
                self.flush();
            }
            self.literal.extend_from_slice(part);
        }
    }

    fn flush(&mut self) {
        if self.literal.is_empty() {
            return;
        }
        if self.literals <= MAX_LITERALS {
            let length = u32::try_from(self.literal.len()).unwrap_or(u32::MAX);
            let written = self
                .sink
                .write_all(&[LITERAL])
                .and_then(|()| self.sink.write_all(&length.to_le_bytes()))
                .and_then(|()| self.sink.write_all(&self.literal));
            self.note(written);
        }
        self.literal.clear();
    }

    fn begin(&mut self, path: &[u8], offset: u64) {
        self.file = Some(Content { path: path.to_vec(), offset, length: 0, crc: flate2::Crc::new() });
    }

    fn end(&mut self) {
        let Some(content) = self.file.take().filter(|content| content.length > 0) else { return };
        self.flush();
        let mut piece = Vec::with_capacity(content.path.len() + 23);
        piece.push(FILE);
        piece.extend_from_slice(&u16::try_from(content.path.len()).unwrap_or(u16::MAX).to_le_bytes());
        piece.extend_from_slice(&content.offset.to_le_bytes());
        piece.extend_from_slice(&content.length.to_le_bytes());
        piece.extend_from_slice(&content.crc.sum().to_le_bytes());
        piece.extend_from_slice(&content.path);
        let written = self.sink.write_all(&piece);
        self.note(written);
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failed.get_or_insert(error);
        }
    }

    /// Ends it. One that would not be whole is removed.
    fn finish(mut self, folder: &Path) -> io::Result<()> {
        self.end();
        self.flush();
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.literals > MAX_LITERALS {
            tracing::warn!(folder = %folder.display(), "a layer has content in its archive that is in none of its files: it cannot be saved");
            drop(self.sink);
            return std::fs::remove_file(folder.join(SKELETON));
        }
        self.sink.write_all(&[END])?;
        self.sink.write_all(&self.total.to_le_bytes())?;
        self.sink.finish().map(drop)
    }
}

/// A stream of an archive, with a recorder that sees all that is consumed.
#[derive(Debug)]
pub(crate) struct Tap<R> {
    inner: R,
    recorder: Option<Recorder>,
}

impl<R: BufRead> Tap<R> {
    /// Over a stream that is recorded.
    pub(crate) fn new(inner: R, recorder: Recorder) -> Self {
        Self { inner, recorder: Some(recorder) }
    }

    /// Over a stream that is not.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn silent(inner: R) -> Self {
        Self { inner, recorder: None }
    }

    /// What follows goes into this file at this offset.
    pub(crate) fn file(&mut self, path: &[u8], offset: u64) {
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(path, offset);
        }
    }

    /// What follows goes into no file.
    pub(crate) fn no_file(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.end();
        }
    }

    /// The stream alone; what it still has is not recorded.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// Reads what follows the archive's end, and ends the skeleton in the layer's folder.
    pub(crate) fn finish(mut self, folder: &Path) -> Result<io::Result<R>, io::Error> {
        loop {
            let rest = match self.fill_buf() {
                Ok(rest) => rest.len(),
                Err(error) => return Ok(Err(error)),
            };
            if rest == 0 {
                break;
            }
            self.consume(rest);
        }
        if let Some(recorder) = self.recorder {
            recorder.finish(folder)?;
        }
        Ok(Ok(self.inner))
    }
}

impl<R: BufRead> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        take(self, buffer)
    }
}

impl<R: BufRead> BufRead for Tap<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Some(recorder) = &mut self.recorder
            && count > 0
            // What was not consumed yet is still there, so nothing is read here.
            && let Ok(available) = self.inner.fill_buf()
        {
            recorder.take(&available[..count.min(available.len())]);
        }
        self.inner.consume(count);
    }
}

#[cfg(test)]
mod tests;

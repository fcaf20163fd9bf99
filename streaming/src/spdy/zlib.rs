//! Compression of headers: one zlib stream in each direction for the life of the connection.
//!
//! Both are made when they are first needed; each costs tens of kilobytes, and a connection may never send a header.

use std::fmt;

use bytes::BytesMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// Headers are a few hundred bytes, so a small window is as good as the largest and a tenth of its memory. It must
/// hold the dictionary's useful part.
const WINDOW_BITS: u8 = 11;

/// Why a block cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not a zlib stream, or one that ends.
    Corrupt,
    /// More than the limit.
    TooLarge,
}

/// The receiving direction.
#[derive(Default)]
pub(super) struct Inflater {
    stream: Option<Decompress>,
}

/// The sending direction.
#[derive(Default)]
pub struct Deflater {
    stream: Option<Compress>,
}

// === impl Inflater ===

impl Inflater {
    /// Inflates the block of one frame to at most `limit` bytes.
    pub(super) fn inflate(&mut self, mut input: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
        let stream = self.stream.get_or_insert_with(|| Decompress::new(true));
        let mut out = Vec::with_capacity((input.len() * 4).max(64).min(limit + 1));
        loop {
            if out.len() == out.capacity() {
                out.reserve_exact(out.len().min(limit + 1 - out.len()));
            }
            let (taken, given) = (stream.total_in(), out.len());
            let status = stream.decompress_vec(input, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(stream.total_in() - taken).map_err(|_| Fault::Corrupt)?;
            input = input.get(taken..).ok_or(Fault::Corrupt)?;
            match status {
                Err(error) if error.needs_dictionary().is_some() => {
                    stream.set_dictionary(&DICTIONARY).map_err(|_| Fault::Corrupt)?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(Fault::Corrupt),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if out.len() > limit {
                return Err(Fault::TooLarge);
            }
            if out.len() < out.capacity() {
                if input.is_empty() {
                    return Ok(out);
                }
                if taken == 0 && out.len() == given {
                    return Err(Fault::Corrupt);
                }
            }
        }
    }
}

// === impl Deflater ===

impl Deflater {
    /// A compressor whose stream starts with the first block.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the block of one frame, complete for a peer that has seen all blocks before it.
    pub(super) fn deflate(&mut self, mut input: &[u8], out: &mut BytesMut) {
        let stream = self.stream.get_or_insert_with(|| {
            let mut stream = Compress::new_with_window_bits(Compression::fast(), true, WINDOW_BITS);
            // Fails only in the middle of a stream; without the dictionary the stream is valid, too, only longer.
            let _ = stream.set_dictionary(&DICTIONARY);
            stream
        });
        let mut buffer = [0; 1024];
        loop {
            let before = (stream.total_in(), stream.total_out());
            // Fails only when called after the end of the stream, which is never reached.
            let status = stream.compress(input, &mut buffer, FlushCompress::Sync);
            let taken = (stream.total_in() - before.0) as usize;
            let given = (stream.total_out() - before.1) as usize;
            input = &input[taken..];
            out.extend_from_slice(&buffer[..given]);
            if status.is_err() || given < buffer.len() {
                return;
            }
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("started", &self.stream.is_some()).finish()
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("started", &self.stream.is_some()).finish()
    }
}

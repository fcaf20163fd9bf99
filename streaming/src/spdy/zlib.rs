//! Compression of headers: one zlib stream in each direction for the life of the connection.
//!
//! A server sends hardly any headers, and there may be thousands of connections, so the sending direction keeps the
//! last of its text instead of a compressor of 200 kB: a new one that is given this text writes blocks that continue
//! the stream. The receiving direction is made when it is first needed.

use std::fmt;

use bytes::{BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// Headers are a few hundred bytes, so a small window is as good as the largest.
const WINDOW_BITS: u8 = 11;
const WINDOW: usize = 1 << WINDOW_BITS;
/// A zlib stream with a window of at most 32 kB, then a dictionary.
const START: [u8; 2] = [0x78, 0xbb];
/// The checksum by which the dictionary is named.
const DICTIONARY_ID: u32 = 0xe3c6_a7c2;
/// Blocks up to this size, such as that of no headers at all, are not worth a compressor.
const STORED: usize = 32;

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
    /// The text to which the next block may refer: the end of the dictionary and of all blocks. Empty at the start.
    history: Vec<u8>,
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
    pub(super) fn deflate(&mut self, block: &[u8], out: &mut BytesMut) {
        if self.history.is_empty() {
            out.put_slice(&START);
            out.put_u32(DICTIONARY_ID);
            self.history.extend_from_slice(&DICTIONARY);
        }
        if block.len() <= STORED || !self.compress(block, out) {
            stored(block, out);
            // Readers may keep what they have until a block like this tells them to give it out.
            stored(&[], out);
        }
        self.history.extend_from_slice(block);
        let old = self.history.len().saturating_sub(WINDOW);
        self.history.drain(..old);
    }

    /// Compresses, up to a byte's end. After a failure, of which none is known, nothing was appended.
    fn compress(&self, mut block: &[u8], out: &mut BytesMut) -> bool {
        let mut stream = Compress::new_with_window_bits(Compression::fast(), false, WINDOW_BITS);
        if stream.set_dictionary(&self.history).is_err() {
            return false;
        }
        let start = out.len();
        let mut buffer = [0; 1024];
        loop {
            let before = (stream.total_in(), stream.total_out());
            let status = stream.compress(block, &mut buffer, FlushCompress::Sync);
            if status.is_err() {
                out.truncate(start);
                return false;
            }
            block = &block[(stream.total_in() - before.0) as usize..];
            let given = (stream.total_out() - before.1) as usize;
            out.put_slice(&buffer[..given]);
            if given < buffer.len() {
                return true;
            }
        }
    }
}

/// Blocks of deflate that hold their text as it is; each starts and ends at a byte's boundary.
fn stored(text: &[u8], out: &mut BytesMut) {
    let mut rest = text;
    loop {
        let (now, later) = rest.split_at(rest.len().min(0xffff));
        out.put_u8(0);
        out.put_u16_le(now.len() as u16);
        out.put_u16_le(!(now.len() as u16));
        out.put_slice(now);
        rest = later;
        if rest.is_empty() {
            return;
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
        f.debug_struct("Deflater").field("history", &self.history.len()).finish()
    }
}

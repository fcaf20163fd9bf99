//! Reading tar: headers by the `tar` crate, long names and PAX records here, because sizes must be limited before
//! anything is allocated.

mod pax;
mod sparse;

use std::io::{self, BufRead};

use tar::Header;

use super::{UnpackError, stream::TOO_LARGE};
use pax::{Pax, read_pax};

const BLOCK: usize = 512;
/// Bytes of one extended header. Extended attributes are at most 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// Offset and length of what is not a hole, and the whole size.
    Sparse(Vec<(u64, u64)>, u64),
    Directory,
    Symlink,
    HardLink,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// One entry; its content is read from the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Bytes of content in the archive.
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar archive that is read once from front to back.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    reader: R,
    /// Content that was not read yet.
    content: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, content: 0, padding: 0 }
    }

    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    pub(crate) fn reader(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The next entry, or `None` at the end mark or the end of the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut pax = Pax::default();
        let (mut long_path, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header.as_old().size, header.entry_size());
            let size = size.ok_or(UnpackError::Broken("an entry's size is not a number"))?;
            match header.entry_type().as_byte() {
                b'x' | b'X' => pax = read_pax(&self.extension(size)?)?,
                // Global records tell of the archive's making, and nobody heeds them in layers.
                b'g' => drop(self.extension(size)?),
                b'L' => long_path = Some(text(self.extension(size)?)),
                b'K' => long_link = Some(text(self.extension(size)?)),
                kind => return self.entry(&header, kind, size, pax, long_path, long_link).map(Some),
            }
        }
    }

    /// The next piece of the entry's content, empty at its end; [`Self::consume`] says how much was used.
    pub(crate) fn content(&mut self) -> Result<&[u8], UnpackError> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let piece = self.reader.fill_buf().map_err(read_error)?;
        if piece.is_empty() {
            return Err(UnpackError::Broken("it ends in the middle of a file"));
        }
        let count = usize::try_from(self.content).unwrap_or(usize::MAX).min(piece.len());
        Ok(&piece[..count])
    }

    /// Bytes of the entry's content that were not consumed yet.
    pub(super) fn remaining(&self) -> u64 {
        self.content
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.content -= count as u64;
        self.reader.consume(count);
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        // Only a file that cannot end here has a size so large that this matters.
        self.content = self.content.saturating_add(std::mem::take(&mut self.padding));
        loop {
            let count = self.content()?.len();
            if count == 0 {
                return Ok(());
            }
            self.consume(count);
        }
    }

    fn expect(&mut self, size: u64) {
        self.content = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, UnpackError> {
        let mut block = [0; BLOCK];
        let mut length = 0;
        while length < BLOCK {
            let piece = self.reader.fill_buf().map_err(read_error)?;
            if piece.is_empty() {
                return if length == 0 {
                    Ok(None)
                } else {
                    Err(UnpackError::Broken("it ends in the middle of a header"))
                };
            }
            let count = piece.len().min(BLOCK - length);
            block[length..length + count].copy_from_slice(&piece[..count]);
            self.reader.consume(count);
            length += count;
        }
        Ok(Some(block))
    }

    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(&block);
        let sum = |signed: bool| -> i64 {
            let byte = |byte: u8| if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) };
            let blank = |index: usize| if (148..156).contains(&index) { b' ' } else { block[index] };
            (0..BLOCK).map(|index| byte(blank(index))).sum()
        };
        let stored =
            header.cksum().map(i64::from).map_err(|_| UnpackError::Broken("a header's checksum is not a number"))?;
        if stored != sum(false) && stored != sum(true) {
            return Err(UnpackError::Broken("a header's checksum is wrong: it is not a tar archive, or it is damaged"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        if size > MAX_EXTENSION {
            return Err(UnpackError::Broken("an extended header is larger than 1 MiB"));
        }
        self.expect(size);
        let mut bytes = Vec::new();
        loop {
            let piece = self.content()?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(piece);
            let count = piece.len();
            self.consume(count);
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: u8,
        size: u64,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, UnpackError> {
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let path = pax.sparse.name.clone().filter(|_| pax.sparse.is_used()).unwrap_or(path);
        let link = pax.link.or(long_link).or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let refused = |why| Err(UnpackError::refused(&path, why));
        let broken = || UnpackError::refused(&path, "a number in its header is broken");
        let device = || {
            let part = |part: io::Result<Option<u32>>| part.ok().flatten();
            let both = part(header.device_major()).zip(part(header.device_minor()));
            both.ok_or_else(|| UnpackError::refused(&path, "its device number is broken"))
        };
        let plain = matches!(kind, b'0' | b'7' | 0);
        // Only files have content, whatever size a header gives.
        let mut size = if plain || kind == b'S' { pax.size.unwrap_or(size) } else { 0 };
        let kind = match kind {
            // As old programs wrote folders. What content there may be is passed over.
            _ if plain && path.ends_with(b"/") => Kind::Directory,
            _ if plain && pax.sparse.is_used() => {
                let (regions, whole, stored) = self.pax_regions(&pax.sparse, &path, size)?;
                size = stored;
                Kind::Sparse(regions, whole)
            }
            _ if plain => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => {
                let (regions, whole) = self.gnu_regions(header, &path, size)?;
                Kind::Sparse(regions, whole)
            }
            _ => return refused("its type is none that layers have"),
        };
        self.expect(size);
        let id = |id: u64| {
            let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| UnpackError::refused(&path, "its owner is no valid user or group number"))
        };
        let old = header.as_old();
        let owner = |own: Option<u64>, field: &[u8], value| own.or_else(|| number(field, value)).ok_or_else(broken);
        let uid = owner(pax.uid, &old.uid, header.uid())?;
        let gid = owner(pax.gid, &old.gid, header.gid())?;
        let mode = number(&old.mode, header.mode()).ok_or_else(broken)? & 0o7777;
        Ok(Entry {
            uid: id(uid)?,
            gid: id(gid)?,
            link: link.unwrap_or_default(),
            kind,
            size,
            mode,
            mtime: pax.mtime.unwrap_or_else(|| (seconds(&old.mtime, header), 0)),
            xattrs: pax.xattrs,
            path,
        })
    }
}

pub(crate) fn read_error(error: io::Error) -> UnpackError {
    if error.kind() == TOO_LARGE {
        return UnpackError::Limit { what: "bytes", limit: 0 };
    }
    UnpackError::Read(error)
}

/// A field of a header; one that was left blank counts as zero.
fn number<T: From<u8>>(field: &[u8], value: io::Result<T>) -> Option<T> {
    let blank = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if blank { Some(T::from(0)) } else { value.ok() }
}

/// The time in a header, which may be before the epoch: then it is binary, in two's complement. What is no number counts
/// as the epoch, as half of a time is worth no refusal.
fn seconds(field: &[u8; 12], header: &Header) -> i64 {
    let binary = field[0] & 0x80 != 0;
    if binary && field[0] & 0x40 != 0 && field[1..4].iter().all(|byte| *byte == 0xff) {
        let [.., a, b, c, d, e, f, g, h] = *field;
        return i64::from_be_bytes([a, b, c, d, e, f, g, h]).min(0);
    }
    header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0)
}

/// Up to the first NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests;

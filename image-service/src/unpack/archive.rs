//! Reading tar: headers by the `tar` crate, long names and PAX records here, because sizes must be limited before
//! anything is allocated.

use std::io::{self, BufRead};

use tar::Header;

use super::{UnpackError, stream::TOO_LARGE};

const BLOCK: usize = 512;
/// Bytes of one extended header. Extended attributes are at most 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;
/// Holes of a sparse file.
const MAX_REGIONS: usize = 65_536;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
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
pub(super) struct Entry {
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
pub(super) struct Archive<R> {
    reader: R,
    /// Content that was not read yet.
    content: u64,
    padding: u64,
}

/// Records of one PAX header.
#[derive(Debug, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: bool,
}

impl<R: BufRead> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, content: 0, padding: 0 }
    }

    pub(super) fn into_inner(self) -> R {
        self.reader
    }

    /// The next entry, or `None` at the end mark or the end of the stream.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
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
    pub(super) fn content(&mut self) -> Result<&[u8], UnpackError> {
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

    pub(super) fn consume(&mut self, count: usize) {
        self.content -= count as u64;
        self.reader.consume(count);
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        self.content += std::mem::take(&mut self.padding);
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
        let link = pax.link.or(long_link).or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let refused = |why| Err(UnpackError::refused(&path, why));
        let broken = || UnpackError::refused(&path, "a number in its header is broken");
        let device = || {
            let part = |part: io::Result<Option<u32>>| part.ok().flatten();
            let both = part(header.device_major()).zip(part(header.device_minor()));
            both.ok_or_else(|| UnpackError::refused(&path, "its device number is broken"))
        };
        if pax.sparse {
            return refused("it is a sparse file in PAX form, which image builders do not write");
        }
        let size = pax.size.unwrap_or(size);
        let kind = match kind {
            b'0' | b'7' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | 0 => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device().map(|(major, minor)| Kind::CharDevice(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::BlockDevice(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => self.sparse(header, &path, size)?,
            _ => return refused("its type is none that layers have"),
        };
        // Only files have content, whatever size a header gives.
        let size = if matches!(kind, Kind::File | Kind::Sparse(..)) { size } else { 0 };
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
        let seconds = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
        Ok(Entry {
            uid: id(uid)?,
            gid: id(gid)?,
            link: link.unwrap_or_default(),
            kind,
            size,
            mode,
            mtime: pax.mtime.unwrap_or((seconds, 0)),
            xattrs: pax.xattrs,
            path,
        })
    }

    /// The map of a sparse file in GNU's old form.
    fn sparse(&mut self, header: &Header, path: &[u8], size: u64) -> Result<Kind, UnpackError> {
        let refused = |why| UnpackError::refused(path, why);
        let wrong = || refused("its map of holes is broken");
        let broken = |_: io::Error| wrong();
        let gnu = header.as_gnu().ok_or_else(|| refused("it is sparse, but not in GNU's form"))?;
        let whole = gnu.real_size().map_err(broken)?;
        let mut regions = Vec::new();
        for region in gnu.sparse.iter().filter(|region| !region.is_empty()) {
            regions.push((region.offset().map_err(broken)?, region.length().map_err(broken)?));
        }
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or(UnpackError::Broken("it ends in the middle of a map of holes"))?;
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            for region in extension.sparse().iter().filter(|region| !region.is_empty()) {
                regions.push((region.offset().map_err(broken)?, region.length().map_err(broken)?));
            }
            if regions.len() > MAX_REGIONS {
                return Err(refused("its map of holes is too long"));
            }
            more = extension.is_extended();
        }
        let (mut end, mut stored) = (0, 0_u64);
        for (offset, length) in &regions {
            let begins_after = *offset >= end;
            end = offset.checked_add(*length).filter(|end| begins_after && *end <= whole).ok_or_else(wrong)?;
            stored = stored.saturating_add(*length);
        }
        if stored != size {
            return Err(wrong());
        }
        Ok(Kind::Sparse(regions, whole))
    }
}

pub(super) fn read_error(error: io::Error) -> UnpackError {
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

/// Up to the first NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Records of the form `LENGTH KEY=VALUE\n`. Values are bytes and may hold anything.
fn read_pax(mut bytes: &[u8]) -> Result<Pax, UnpackError> {
    const BROKEN: UnpackError = UnpackError::Broken("a PAX header is not a list of records");
    let mut pax = Pax::default();
    while !bytes.is_empty() {
        let space = bytes.iter().take(8).position(|byte| *byte == b' ').ok_or(BROKEN)?;
        let length: usize = decimal(&bytes[..space]).and_then(|length| length.try_into().ok()).ok_or(BROKEN)?;
        let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(BROKEN)?;
        bytes = &bytes[length..];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // An empty value takes back what a global header said.
        match key {
            _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {}
            b"path" => pax.path = Some(value.to_vec()),
            b"linkpath" => pax.link = Some(value.to_vec()),
            b"size" => pax.size = Some(decimal(value).ok_or(BROKEN)?),
            b"uid" => pax.uid = Some(decimal(value).ok_or(BROKEN)?),
            b"gid" => pax.gid = Some(decimal(value).ok_or(BROKEN)?),
            b"mtime" => pax.mtime = Some(time(value).ok_or(BROKEN)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    pax.xattrs.push((name.to_vec(), value.to_vec()));
                } else if key.starts_with(b"GNU.sparse.") {
                    pax.sparse = true;
                }
            }
        }
    }
    Ok(pax)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// Seconds with a fraction, as `-1.5`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0;
    if let Some(fraction) = parts.next().filter(|fraction| !fraction.is_empty()) {
        let digits: Vec<u8> = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9).collect();
        nanos = u32::try_from(decimal(&digits)?).ok()?;
    }
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests;

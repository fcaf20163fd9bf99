//! Maps of sparse files: GNU's old form in the header, and the three that GNU tar keeps in PAX records.
//!
//! Versions 0.0 and 0.1 have the map in the records, version 1.0 in front of the content. What is stored is always the
//! regions, one after the other.

use std::io::{self, BufRead};

use tar::Header;

use super::{super::UnpackError, Archive, BLOCK, pax::decimal};

/// Regions of a sparse file.
const MAX_REGIONS: usize = 65_536;

/// Offset and length of what is not a hole.
type Regions = Vec<(u64, u64)>;

/// Records whose keys begin with `GNU.sparse.`.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub name: Option<Vec<u8>>,
    version: (Option<Vec<u8>>, Option<Vec<u8>>),
    size: Option<u64>,
    /// Offsets and lengths, in turn.
    map: Vec<u64>,
    has_map: bool,
}

impl SparseRecords {
    /// Takes a record, `None` if its value is not what it should be.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        match name {
            b"major" => self.version.0 = Some(value.to_vec()),
            b"minor" => self.version.1 = Some(value.to_vec()),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"offset" | b"numbytes" => {
                // They take turns, an offset first.
                let is_length = name == b"numbytes";
                (is_length == (self.map.len() % 2 == 1)).then_some(())?;
                self.map.push(decimal(value)?);
                self.has_map = true;
            }
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                self.map = numbers.collect::<Option<_>>()?;
                self.has_map = true;
            }
            _ => {}
        }
        Some(())
    }

    /// Whether they make the file a sparse one.
    pub(super) fn is_used(&self) -> bool {
        self.has_map || self.size.is_some() || self.version.0.is_some() || self.version.1.is_some()
    }
}

impl<R: BufRead> Archive<R> {
    /// The map of a sparse file in GNU's old form, and the file's whole size. `size` bytes are stored.
    pub(super) fn gnu_regions(
        &mut self,
        header: &Header,
        path: &[u8],
        size: u64,
    ) -> Result<(Regions, u64), UnpackError> {
        let refused = |why| UnpackError::refused(path, why);
        let broken = |_: io::Error| wrong(path);
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
        check(&regions, whole, size, path)?;
        Ok((regions, whole))
    }

    /// The map of a sparse file in a PAX form, the file's whole size, and how many of the `size` bytes are left to read
    /// once the map was.
    pub(super) fn pax_regions(
        &mut self,
        records: &SparseRecords,
        path: &[u8],
        size: u64,
    ) -> Result<(Regions, u64, u64), UnpackError> {
        let text = |part: &Option<Vec<u8>>| part.as_deref().map(<[u8]>::to_vec).unwrap_or_default();
        let (mut map, mut stored) = (records.map.clone(), size);
        match (text(&records.version.0).as_slice(), text(&records.version.1).as_slice()) {
            (b"1", b"0") => {
                self.expect(size);
                let count = self.map_number(path)?;
                let count = usize::try_from(count).ok().filter(|count| *count <= MAX_REGIONS);
                let count = count.ok_or_else(|| UnpackError::refused(path, "its map of holes is too long"))?;
                map = (0..count * 2).map(|_| self.map_number(path)).collect::<Result<_, _>>()?;
                // The content begins with the next block.
                let read = size - self.content;
                let map_size = read.next_multiple_of(BLOCK as u64);
                stored = size.checked_sub(map_size).ok_or_else(|| wrong(path))?;
                while self.content > stored {
                    let count = self.content()?.len().min(usize::try_from(self.content - stored).unwrap_or(BLOCK));
                    self.consume(count);
                }
            }
            (b"" | b"0", b"" | b"0" | b"1") => {}
            _ => return Err(UnpackError::refused(path, "it is sparse in a form that is not known")),
        }
        if map.len() % 2 != 0 || map.len() > 2 * MAX_REGIONS {
            return Err(wrong(path));
        }
        let regions: Regions = map.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let whole = records.size.ok_or_else(|| wrong(path))?;
        check(&regions, whole, stored, path)?;
        Ok((regions, whole, stored))
    }

    /// A line of a map in front of the content.
    fn map_number(&mut self, path: &[u8]) -> Result<u64, UnpackError> {
        let mut digits = Vec::new();
        loop {
            let byte = *self.content()?.first().ok_or_else(|| wrong(path))?;
            self.consume(1);
            match byte {
                b'\n' => return decimal(&digits).ok_or_else(|| wrong(path)),
                _ if digits.len() == 20 => return Err(wrong(path)),
                byte => digits.push(byte),
            }
        }
    }
}

fn wrong(path: &[u8]) -> UnpackError {
    UnpackError::refused(path, "its map of holes is broken")
}

/// Regions follow one another inside the file, and are all that is stored.
fn check(regions: &[(u64, u64)], whole: u64, stored: u64, path: &[u8]) -> Result<(), UnpackError> {
    let (mut end, mut sum) = (0, 0_u64);
    for (offset, length) in regions {
        let begins_after = *offset >= end;
        end = offset.checked_add(*length).filter(|end| begins_after && *end <= whole).ok_or_else(|| wrong(path))?;
        sum = sum.saturating_add(*length);
    }
    if sum == stored { Ok(()) } else { Err(wrong(path)) }
}

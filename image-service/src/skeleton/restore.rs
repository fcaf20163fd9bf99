//! From a skeleton and the layer's files back to the archive.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::Errno,
};
use thiserror::Error;

use super::{END, FILE, LITERAL, MAGIC, MAX_LITERAL, MAX_PATH, SKELETON};
use crate::digest::{Digest, Hasher};

const BUFFER: usize = 256 << 10;

/// Why an archive does not come back.
#[derive(Debug, Error)]
pub(crate) enum SkeletonError {
    /// There is none.
    #[error("the skeleton of its archive was not kept when it was unpacked")]
    Absent,
    /// Something else wrote into it.
    #[error("the skeleton of its archive, {path}, is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// A file of the layer is not to be had.
    #[error("its file {path:?} cannot be read")]
    File {
        /// Path in the layer.
        path: OsString,
        /// Why.
        source: io::Error,
    },
    /// A file of the layer is not what it was.
    #[error("its file {path:?} is not what it was when it was unpacked")]
    Changed {
        /// Path in the layer.
        path: OsString,
    },
    /// The archive is not the one that was unpacked.
    #[error("what comes back is {got}")]
    Digest {
        /// Its digest.
        got: Digest,
    },
    /// Whoever takes the archive does not any more.
    #[error("the archive cannot be handed on")]
    Sink(#[source] io::Error),
}

/// A part of an archive.
enum Piece {
    Literal(Vec<u8>),
    File { path: Vec<u8>, offset: u64, length: u64, crc: u32 },
    End { total: u64 },
}

/// The archive of an unpacked layer.
#[derive(Debug)]
pub(crate) struct Archive {
    skeleton: PathBuf,
    fs: OwnedFd,
    size: u64,
}

impl Archive {
    /// Over a layer's folder. Its skeleton is read once, and each file is looked for, so that what is missing shows before
    /// anything was written.
    pub(crate) fn open(folder: &Path) -> Result<Self, SkeletonError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fs = openat(CWD, folder.join("fs"), flags, Mode::empty())
            .map_err(|error| SkeletonError::File { path: "fs".into(), source: error.into() })?;
        let mut archive = Self { skeleton: folder.join(SKELETON), fs, size: 0 };
        let mut pieces = archive.pieces()?;
        loop {
            match archive.next(&mut pieces)? {
                Piece::Literal(bytes) => archive.size += bytes.len() as u64,
                Piece::File { path, offset, length, .. } => {
                    let end = offset.checked_add(length).ok_or_else(|| changed(&path))?;
                    let file = archive.file(&path)?;
                    let whole = fstat(&file).map_err(|error| unreadable(&path, error))?.st_size;
                    if u64::try_from(whole).unwrap_or(0) < end {
                        return Err(changed(&path));
                    }
                    archive.size += length;
                }
                Piece::End { total } if total == archive.size => return Ok(archive),
                Piece::End { .. } => return Err(archive.damaged(io::ErrorKind::InvalidData.into())),
            }
        }
    }

    /// Bytes of the archive.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes the archive, and sees to it that it is the one that has this digest.
    pub(crate) fn write(&self, expected: &Digest, sink: &mut impl Write) -> Result<(), SkeletonError> {
        let mut pieces = self.pieces()?;
        let mut hasher = Hasher::new(expected.algorithm());
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.next(&mut pieces)? {
                Piece::Literal(bytes) => {
                    hasher.update(&bytes);
                    sink.write_all(&bytes).map_err(SkeletonError::Sink)?;
                }
                Piece::File { path, offset, length, crc } => {
                    let file = self.file(&path)?;
                    let (mut at, mut left, mut found) = (offset, length, flate2::Crc::new());
                    while left > 0 {
                        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                        let count = match file.read_at(&mut buffer[..count], at) {
                            Ok(0) => return Err(changed(&path)),
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                            Err(source) => return Err(SkeletonError::File { path: os(&path), source }),
                            Ok(count) => count,
                        };
                        (at, left) = (at + count as u64, left - count as u64);
                        found.update(&buffer[..count]);
                        hasher.update(&buffer[..count]);
                        sink.write_all(&buffer[..count]).map_err(SkeletonError::Sink)?;
                    }
                    if found.sum() != crc {
                        return Err(changed(&path));
                    }
                }
                Piece::End { .. } => break,
            }
        }
        let got = hasher.finish();
        if got == *expected { Ok(()) } else { Err(SkeletonError::Digest { got }) }
    }

    fn damaged(&self, source: io::Error) -> SkeletonError {
        SkeletonError::Damaged { path: self.skeleton.clone(), source }
    }

    /// The skeleton from its beginning.
    fn pieces(&self) -> Result<impl Read + use<>, SkeletonError> {
        let file = File::open(&self.skeleton).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SkeletonError::Absent,
            _ => self.damaged(error),
        })?;
        let decoder = zstd::Decoder::new(file).map_err(|error| self.damaged(error))?;
        let mut pieces = BufReader::with_capacity(MAX_LITERAL, decoder);
        let magic: [u8; MAGIC.len()] = array(&mut pieces).map_err(|error| self.damaged(error))?;
        if magic != MAGIC {
            return Err(self.damaged(io::ErrorKind::InvalidData.into()));
        }
        Ok(pieces)
    }

    fn next(&self, pieces: &mut impl Read) -> Result<Piece, SkeletonError> {
        read(pieces).map_err(|error| self.damaged(error))
    }

    /// A regular file of the layer, by the path under which it was unpacked.
    fn file(&self, path: &[u8]) -> Result<File, SkeletonError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let file = loop {
            match openat2(&self.fs, path, flags, Mode::empty(), resolve) {
                // Something was renamed on the host meanwhile, which makes the kernel start over.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => break opened,
            }
        };
        let file = file.map_err(|error| unreadable(path, error))?;
        let stat = fstat(&file).map_err(|error| unreadable(path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(changed(path));
        }
        Ok(file.into())
    }
}

fn read(pieces: &mut impl Read) -> io::Result<Piece> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let [kind] = array(pieces)?;
    match kind {
        LITERAL => {
            let length = u32::from_le_bytes(array(pieces)?) as usize;
            bytes(pieces, Some(length).filter(|length| *length <= MAX_LITERAL).ok_or_else(broken)?).map(Piece::Literal)
        }
        FILE => {
            let length = usize::from(u16::from_le_bytes(array(pieces)?));
            let offset = u64::from_le_bytes(array(pieces)?);
            let content = u64::from_le_bytes(array(pieces)?);
            let crc = u32::from_le_bytes(array(pieces)?);
            let path = bytes(pieces, Some(length).filter(|length| *length <= MAX_PATH).ok_or_else(broken)?)?;
            Ok(Piece::File { path, offset, length: content, crc })
        }
        END => {
            let total = u64::from_le_bytes(array(pieces)?);
            // Reading to the end is what compares the checksum.
            if pieces.read(&mut [0])? > 0 {
                return Err(broken());
            }
            Ok(Piece::End { total })
        }
        _ => Err(broken()),
    }
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    from.read_exact(&mut array)?;
    Ok(array)
}

fn bytes(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn os(path: &[u8]) -> OsString {
    OsString::from_vec(path.to_vec())
}

fn changed(path: &[u8]) -> SkeletonError {
    SkeletonError::Changed { path: os(path) }
}

fn unreadable(path: &[u8], error: Errno) -> SkeletonError {
    SkeletonError::File { path: os(path), source: error.into() }
}

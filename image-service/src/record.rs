//! The record of a layer's files, `files` beside its `fs`: what was there when it had been unpacked.
//!
//! The archive that a layer came from is not kept, so its digest cannot be computed again; this is what a check holds
//! the files against. Contents are hashed while they are written (XXH3, 128 bits: it finds damage and accidents, and
//! costs next to nothing; nobody who may write here needs to forge a hash), the rest is read from the finished tree.
//!
//! Format: the line `tripod files 1`, then one item for each file, folder and link in the order of [`walk`], then an
//! item of kind [`END`], the number of items, and the hash of all bytes so far (16 bytes, little-endian). Numbers are
//! LEB128. An item is its kind (1 byte), how many bytes of the last path it shares, the rest of its path (length, bytes),
//! mode, owner, group, seconds (zigzag) and nanoseconds of its time, the number of its set of hard links or 0, what its
//! kind has (a file: size and hash; a link: target; a device: numbers), and its attributes (count; name and value each).

mod walk;

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use twox_hash::XxHash3_128;

use crate::objects::Objects;

pub(crate) use walk::{Found, has_no_attributes, names, walk};

const MAGIC: &[u8] = b"tripod files 1\n";
/// The kind that ends a record.
const END: u8 = 0;
/// Bytes of a path, of an attribute's name, or of its value.
const MAX_BYTES: u64 = 1 << 17;
/// Hashes that are kept in memory while a layer is unpacked; files beyond are read again for the record.
const MAX_HASHES: usize = 1 << 20;

/// A file, folder or link of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Relative to the layer; empty for its root.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permissions alone.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    /// Files of the same number are one file; 0 is none of them.
    pub links: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File { size: u64, hash: u128 },
    Link(Vec<u8>),
    CharDevice(u64),
    BlockDevice(u64),
    Fifo,
    Socket,
}

impl Kind {
    fn number(&self) -> u8 {
        match self {
            Self::Folder => 1,
            Self::File { .. } => 2,
            Self::Link(_) => 3,
            Self::CharDevice(_) => 4,
            Self::BlockDevice(_) => 5,
            Self::Fifo => 6,
            Self::Socket => 7,
        }
    }

    /// As people call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::File { .. } => "file",
            Self::Link(_) => "symbolic link",
            Self::CharDevice(0) => "whiteout",
            Self::CharDevice(_) => "character device",
            Self::BlockDevice(_) => "block device",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
        }
    }
}

/// Hashes of contents by inode, taken while a layer is unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    hashes: HashMap<u64, u128>,
    /// Files that other layers have as well.
    shared: HashSet<u64>,
    /// Something has extended attributes.
    pub attributes: bool,
}

impl Contents {
    /// Of a file that this layer has alone.
    pub(crate) fn insert(&mut self, inode: u64, hash: u128) {
        self.shared.remove(&inode);
        if self.hashes.len() < MAX_HASHES || self.hashes.contains_key(&inode) {
            self.hashes.insert(inode, hash);
        }
    }

    /// Its content is not known.
    pub(crate) fn forget(&mut self, inode: u64) {
        self.shared.remove(&inode);
        self.hashes.remove(&inode);
    }

    /// Whether there is memory for another shared file.
    pub(crate) fn can_share(&self) -> bool {
        self.shared.len() < MAX_HASHES
    }

    /// Of a file that other layers have as well.
    pub(crate) fn share(&mut self, inode: u64, hash: u128) {
        self.insert(inode, hash);
        self.shared.insert(inode);
    }

    pub(crate) fn is_shared(&self, inode: u64) -> bool {
        self.shared.contains(&inode)
    }

    /// A copy has taken the place of a shared file.
    pub(crate) fn make_own(&mut self, shared: u64, own: u64) {
        self.shared.remove(&shared);
        match self.hashes.remove(&shared) {
            Some(hash) => self.insert(own, hash),
            None => self.forget(own),
        }
    }
}

/// Hashes a content piece by piece. Most contents come in one.
#[derive(Default)]
pub(crate) struct ContentHash {
    whole: Option<u128>,
    pieces: Option<XxHash3_128>,
}

impl std::fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentHash")
    }
}

impl ContentHash {
    /// The hash of a content that is here as a whole.
    pub(crate) fn of(content: &[u8]) -> u128 {
        XxHash3_128::oneshot(content)
    }

    /// Takes the next piece; `last` says that there is no other.
    pub(crate) fn update(&mut self, piece: &[u8], last: bool) {
        match &mut self.pieces {
            None if last => self.whole = Some(Self::of(piece)),
            pieces => pieces.get_or_insert_with(XxHash3_128::new).write(piece),
        }
    }

    pub(crate) fn finish(self) -> u128 {
        self.whole.or_else(|| self.pieces.map(|pieces| pieces.finish_128())).unwrap_or_else(|| Self::of(b""))
    }
}

/// Writes the record of the tree at `fs` to `target`. What `contents` has no hash of is read. What others may share of it
/// becomes one of the objects.
pub(crate) fn write(fs: &Path, target: &Path, contents: &Contents, objects: Option<&Objects>) -> io::Result<()> {
    let mut writer = Writer::new(BufWriter::with_capacity(64 << 10, std::fs::File::create(target)?))?;
    let mut sets = HashMap::new();
    walk(fs, contents.attributes, |found| {
        let mut node = found.node()?;
        if let Kind::File { hash, .. } = &mut node.kind {
            *hash = match contents.hashes.get(&found.inode()) {
                Some(known) => *known,
                None => found.hash()?,
            };
        }
        let shared = contents.is_shared(found.inode());
        if found.is_linked() && !shared {
            let next = sets.len() as u64 + 1;
            node.links = *sets.entry(found.inode()).or_insert(next);
        }
        if let Some(objects) = objects.filter(|_| !shared) {
            objects.keep(found.folder(), found.name(), &node);
        }
        writer.item(&node)
    })?;
    writer.finish()?.flush()
}

struct Writer<W> {
    sink: W,
    hash: XxHash3_128,
    buffer: Vec<u8>,
    last: Vec<u8>,
    count: u64,
}

impl<W: Write> Writer<W> {
    fn new(sink: W) -> io::Result<Self> {
        let mut writer = Self { sink, hash: XxHash3_128::new(), buffer: MAGIC.to_vec(), last: Vec::new(), count: 0 };
        writer.send()?;
        Ok(writer)
    }

    fn send(&mut self) -> io::Result<()> {
        self.hash.write(&self.buffer);
        self.sink.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn item(&mut self, node: &Node) -> io::Result<()> {
        let shared = node.path.iter().zip(&self.last).take_while(|(one, other)| one == other).count();
        let buffer = &mut self.buffer;
        buffer.push(node.kind.number());
        number(buffer, shared as u64);
        bytes(buffer, &node.path[shared..]);
        for value in [node.mode, node.uid, node.gid] {
            number(buffer, value.into());
        }
        number(buffer, zigzag(node.mtime.0));
        number(buffer, node.mtime.1.into());
        number(buffer, node.links);
        match &node.kind {
            Kind::File { size, hash } => {
                number(buffer, *size);
                buffer.extend_from_slice(&hash.to_le_bytes());
            }
            Kind::Link(target) => bytes(buffer, target),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => number(buffer, *device),
            Kind::Folder | Kind::Fifo | Kind::Socket => {}
        }
        number(buffer, node.xattrs.len() as u64);
        for (name, value) in &node.xattrs {
            bytes(buffer, name);
            bytes(buffer, value);
        }
        self.last.clone_from(&node.path);
        self.count += 1;
        self.send()
    }

    fn finish(mut self) -> io::Result<W> {
        self.buffer.push(END);
        number(&mut self.buffer, self.count);
        self.send()?;
        self.sink.write_all(&self.hash.finish_128().to_le_bytes())?;
        Ok(self.sink)
    }
}

fn number(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

fn bytes(buffer: &mut Vec<u8>, value: &[u8]) {
    number(buffer, value.len() as u64);
    buffer.extend_from_slice(value);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// Reads a record item by item. Its own hash is checked first, so that what comes is what was written.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    source: R,
    path: Vec<u8>,
    left: u64,
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the record of its files is damaged")
}

/// Opens a record that is whole.
pub(crate) fn open(path: &Path) -> io::Result<Reader<impl BufRead + std::fmt::Debug>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len().checked_sub(16).ok_or_else(damaged)?;
    let (mut hash, mut left, mut buffer) = (XxHash3_128::new(), length, vec![0; 64 << 10]);
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact(&mut buffer[..count])?;
        hash.write(&buffer[..count]);
        left -= count as u64;
    }
    let mut stored = [0; 16];
    file.read_exact(&mut stored)?;
    if stored != hash.finish_128().to_le_bytes() {
        return Err(damaged());
    }
    io::Seek::rewind(&mut file)?;
    let mut source = BufReader::with_capacity(64 << 10, file.take(length));
    let mut magic = [0; MAGIC.len()];
    source.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the record of its files has an unknown format"));
    }
    Ok(Reader { source, path: Vec::new(), left: 0 })
}

impl<R: BufRead> Reader<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    fn small(&mut self) -> io::Result<u32> {
        self.number()?.try_into().map_err(|_| damaged())
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()?;
        if length > MAX_BYTES {
            return Err(damaged());
        }
        let mut bytes = vec![0; length as usize];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The next item, or `None` after the last.
    pub(crate) fn next(&mut self) -> io::Result<Option<Node>> {
        let kind = self.byte()?;
        if kind == END {
            return if self.number()? == self.left { Ok(None) } else { Err(damaged()) };
        }
        let shared = usize::try_from(self.number()?).ok().filter(|shared| *shared <= self.path.len());
        self.path.truncate(shared.ok_or_else(damaged)?);
        let rest = self.bytes()?;
        self.path.extend_from_slice(&rest);
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let seconds = self.number()?;
        let seconds = (seconds >> 1).cast_signed() ^ -(seconds & 1).cast_signed();
        let mtime = (seconds, self.small()?);
        let links = self.number()?;
        let kind = match kind {
            1 => Kind::Folder,
            2 => {
                let size = self.number()?;
                let mut hash = [0; 16];
                self.source.read_exact(&mut hash)?;
                Kind::File { size, hash: u128::from_le_bytes(hash) }
            }
            3 => Kind::Link(self.bytes()?),
            4 => Kind::CharDevice(self.number()?),
            5 => Kind::BlockDevice(self.number()?),
            6 => Kind::Fifo,
            7 => Kind::Socket,
            _ => return Err(damaged()),
        };
        let count = self.number()?;
        let xattrs = (0..count).map(|_| Ok((self.bytes()?, self.bytes()?))).collect::<io::Result<_>>()?;
        self.left += 1;
        Ok(Some(Node { path: self.path.clone(), kind, mode, uid, gid, mtime, links, xattrs }))
    }
}

#[cfg(test)]
mod tests;

//! What layers show together, one folder at a time, by the rules of overlayfs.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, lgetxattr, openat, openat2, statat},
    io::Errno,
};

use crate::{
    containers::Lower,
    unpack::tree::{magic, split},
};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Layers, the highest first.
pub(super) struct Layers<'a>(Vec<Layer<'a>>);

struct Layer<'a> {
    root: OwnedFd,
    /// Folders without attributes of their own.
    implied: BTreeSet<&'a [u8]>,
    /// Names by the folder that they are gone from, and folders with nothing of what lies below, where the files of the
    /// layer do not tell.
    gone: BTreeMap<&'a [u8], Vec<&'a [u8]>>,
    opaque: BTreeSet<&'a [u8]>,
}

/// A folder, as several layers have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    /// The layers whose content it shows.
    pub content: Vec<usize>,
    /// The layer whose attributes it has.
    pub attributes: usize,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Seen {
    Folder(Folder),
    /// Anything else: in which of the opened folders it lies.
    File(usize, Box<Stat>),
}

/// The opened folders, and the names that they show together.
pub(super) type Listing = (Vec<OwnedFd>, Vec<(CString, Seen)>);

/// What is known of a name while layers are looked through.
enum Found {
    Gone,
    File(usize, Box<Stat>),
    Folder {
        folder: Folder,
        /// Lower layers still add content.
        open: bool,
        /// Its attributes are those that a layer gives it, not just its place.
        named: bool,
        /// A lower layer has something else there, so that those below count for nothing.
        ended: bool,
    },
}

impl<'a> Layers<'a> {
    pub(super) fn open(lower: &'a Lower) -> io::Result<Self> {
        let bytes = |paths: &'a [String]| paths.iter().map(String::as_bytes).collect::<BTreeSet<_>>();
        let all = lower.folders.iter().zip(&lower.implied).zip(&lower.marks);
        let open = |((folder, implied), marks): ((&std::path::PathBuf, &'a Vec<String>), &'a crate::unpack::Marks)| {
            let mut gone: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
            for path in &marks.whiteouts {
                let (folder, name) = split(path.as_bytes());
                gone.entry(folder).or_default().push(name);
            }
            let root = openat(CWD, folder, OFlags::PATH | FOLDER, Mode::empty())?;
            Ok(Layer { root, implied: bytes(implied), gone, opaque: bytes(&marks.opaque) })
        };
        all.map(open).collect::<io::Result<_>>().map(Self)
    }

    /// The root, as all layers have it.
    pub(super) fn root(&self) -> Vec<usize> {
        (0..self.0.len()).collect()
    }

    /// A folder of a layer.
    pub(super) fn folder(&self, layer: usize, path: &[u8]) -> io::Result<OwnedFd> {
        beneath(&self.0[layer].root, path)
    }

    /// What a folder shows that these layers have. With it come the folders themselves, in the order of the layers.
    pub(super) fn list(&self, path: &[u8], content: &[usize]) -> io::Result<Listing> {
        let mut found: BTreeMap<CString, Found> = BTreeMap::new();
        let mut opened = Vec::new();
        for index in content {
            let (layer, folder) = (&self.0[*index], self.folder(*index, path)?);
            for name in layer.gone.get(path).into_iter().flatten() {
                let name = CString::new(*name).map_err(io::Error::other)?;
                found.entry(name).and_modify(Found::end).or_insert(Found::Gone);
            }
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    layer.add((*index, opened.len()), &folder, path, name, &mut found)?;
                }
            }
            opened.push(folder);
        }
        let seen = found.into_iter().filter_map(|(name, found)| match found {
            Found::Gone => None,
            Found::File(place, stat) => Some((name, Seen::File(place, stat))),
            Found::Folder { folder, .. } => Some((name, Seen::Folder(folder))),
        });
        let seen = seen.collect();
        Ok((opened, seen))
    }
}

impl Layer<'_> {
    /// Adds what this layer has under a name to what the layers above it have.
    fn add(
        &self,
        (index, place): (usize, usize),
        folder: &OwnedFd,
        path: &[u8],
        name: &CStr,
        found: &mut BTreeMap<CString, Found>,
    ) -> io::Result<()> {
        let entry = match found.entry(name.to_owned()) {
            Entry::Occupied(entry) if entry.get().is_complete() => return Ok(()),
            entry => entry,
        };
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory {
            let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
            let file = || if whiteout { Found::Gone } else { Found::File(place, Box::new(stat)) };
            entry.and_modify(Found::end).or_insert_with(file);
            return Ok(());
        }
        let below = join(path, name.to_bytes());
        let named = !self.implied.contains(below.as_slice());
        let opaque = self.opaque.contains(below.as_slice()) || is_opaque(folder, name);
        match entry {
            Entry::Vacant(entry) => {
                let folder = Folder { content: vec![index], attributes: index };
                entry.insert(Found::Folder { folder, open: !opaque, named, ended: false });
            }
            Entry::Occupied(mut entry) => {
                if let Found::Folder { folder, open, named: has_name, .. } = entry.get_mut() {
                    if *open {
                        folder.content.push(index);
                    }
                    *open &= !opaque;
                    // An opaque folder hides what is in the one below, not what that one is.
                    if named && !*has_name {
                        (folder.attributes, *has_name) = (index, true);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Found {
    /// Whether nothing that a lower layer has can change it.
    fn is_complete(&self) -> bool {
        match self {
            Self::Gone | Self::File(..) => true,
            Self::Folder { open, named, ended, .. } => *ended || !*open && *named,
        }
    }

    /// A layer has no folder there.
    fn end(&mut self) {
        if let Self::Folder { open, ended, .. } = self {
            (*open, *ended) = (false, true);
        }
    }
}

/// A folder below another one, through no link.
pub(super) fn beneath(root: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(root, path, OFlags::RDONLY | FOLDER, Mode::empty(), resolve) {
            // Something was renamed on the host meanwhile, which makes the kernel start over.
            Err(Errno::AGAIN | Errno::INTR) => {}
            folder => return Ok(folder?),
        }
    }
}

pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, name].join(&b'/') }
}

fn is_opaque(folder: &OwnedFd, name: &CStr) -> bool {
    lgetxattr(magic(folder, name.to_bytes()), "trusted.overlay.opaque", &mut [0; 1][..]).is_ok()
}

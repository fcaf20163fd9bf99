//! Folders that a layer has only because something lies in them.
//!
//! Some builders leave out the entries of folders that exist below already. Applied one on top of the other, a layer
//! would leave such a folder as it was; unpacked alone, it gets a folder with default attributes, which hides those of
//! the layer below (a /tmp that nobody may write to). So the folder on top of all layers gets them right again.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, fstat, getxattr, listxattr, mkdirat, openat, openat2, setxattr, utimensat,
    },
    io::Errno,
};

/// Makes the folders in `top` whose attributes would be wrong otherwise. `layers` are the highest first, each with its
/// implied folders; `mapped` are the layers where other owners than those on disk are to be seen.
pub(super) fn restore(
    layers: &[PathBuf],
    mapped: Option<&[OwnedFd]>,
    implied: &[Vec<String>],
    top: &Path,
) -> io::Result<()> {
    let candidates: BTreeSet<&str> = implied.iter().flatten().map(String::as_str).collect();
    if candidates.is_empty() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut opened = Vec::new();
    if mapped.is_none() {
        opened = layers.iter().map(|layer| openat(CWD, layer, flags, Mode::empty())).collect::<Result<_, _>>()?;
    }
    let roots = mapped.unwrap_or(&opened);
    let implied: Vec<BTreeSet<&str>> = implied.iter().map(|paths| paths.iter().map(String::as_str).collect()).collect();
    let mut needed = BTreeSet::new();
    for path in candidates {
        if let Some((_, true)) = visible(roots, &implied, path)? {
            // What lies above in the tree has to be made too.
            needed.extend(ancestors(path).chain([path]));
        }
    }
    let top = openat(CWD, top, flags, Mode::empty())?;
    let mut made = Vec::new();
    for path in needed {
        let Some((folder, _)) = visible(roots, &implied, path)? else { continue };
        mkdirat(&top, path, Mode::from(0o700))?;
        made.push((path, folder));
    }
    // From the deepest up, because making a folder changes the time of the one above.
    for (path, folder) in made.into_iter().rev() {
        copy_attributes(&folder, &top, path)?;
    }
    Ok(())
}

/// The folders above a path, the highest first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(slash, _)| &path[..slash])
}

/// The folder whose attributes a path should have, and whether overlayfs alone would show others. `None` if the path
/// is no folder.
fn visible(roots: &[OwnedFd], implied: &[BTreeSet<&str>], path: &str) -> io::Result<Option<(OwnedFd, bool)>> {
    let mut hides = None;
    for (root, implied) in roots.iter().zip(implied) {
        match open(root, path) {
            Ok(folder) => {
                if FileType::from_raw_mode(fstat(&folder)?.st_mode) != FileType::Directory {
                    break;
                }
                if !implied.contains(path) {
                    return Ok(Some((folder, hides.is_some())));
                }
                // An opaque folder hides what is in the one below, not what that one is.
                hides.get_or_insert(folder);
            }
            Err(Errno::NOENT) => {}
            // A whiteout or a link stands where the way goes on.
            Err(Errno::NOTDIR | Errno::LOOP) => break,
            Err(error) => return Err(error.into()),
        }
        if ancestors(path).any(|above| open(root, above).is_ok_and(|folder| is_opaque(&folder))) {
            break;
        }
    }
    Ok(hides.map(|folder| (folder, false)))
}

fn open(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn by_descriptor(folder: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd())
}

fn is_opaque(folder: &OwnedFd) -> bool {
    getxattr(by_descriptor(folder), "trusted.overlay.opaque", &mut [0; 1][..]).is_ok()
}

fn copy_attributes(from: &OwnedFd, top: &OwnedFd, path: &str) -> io::Result<()> {
    let Stat { st_mode, st_uid, st_gid, st_mtime, st_mtime_nsec, .. } = fstat(from)?;
    chownat(top, path, Some(Uid::from_raw(st_uid)), Some(Gid::from_raw(st_gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    chmodat(top, path, Mode::from_raw_mode(st_mode), AtFlags::empty())?;
    let (source, target) = (by_descriptor(from), format!("{}/{path}", by_descriptor(top)));
    let mut names = vec![0; 64 << 10];
    let length = listxattr(&source, &mut names[..]).unwrap_or(0);
    for name in names[..length].split(|byte| *byte == 0) {
        if name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") {
            let mut value = vec![0; 64 << 10];
            let length = getxattr(&source, name, &mut value[..])?;
            setxattr(&target, name, &value[..length], XattrFlags::empty())?;
        }
    }
    let time = Timespec { tv_sec: st_mtime, tv_nsec: st_mtime_nsec as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(top, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

//! Where things go that are to be deleted: a rename is quick, deleting a layer is not.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};

/// A folder whose content is deleted in the background, and at every start.
#[derive(Debug, Clone)]
pub(crate) struct Trash {
    dir: PathBuf,
    /// Held while a layer is exchanged, and while replaced ones are looked through. No pull takes it.
    retiring: Arc<Mutex<()>>,
}

impl Trash {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, retiring: Arc::default() }
    }

    /// Keeps those who replace layers and those who throw replaced ones away apart.
    pub(crate) fn retiring(&self) -> MutexGuard<'_, ()> {
        self.retiring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves something here. What is not there is fine.
    pub(crate) fn take(&self, path: &Path) -> io::Result<()> {
        match std::fs::rename(path, self.dir.join(unique())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Deletes all that is here. Folders are pulled up to the top first, so that no depth of nesting, which is an
    /// image's to choose, needs more than two descriptors or any stack.
    pub(crate) fn empty(&self) -> io::Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = openat(CWD, &self.dir, flags, Mode::empty())?;
        loop {
            let names = names(&top)?;
            if names.is_empty() {
                return Ok(());
            }
            for (name, _) in names {
                match unlinkat(&top, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    Err(error) => return Err(error.into()),
                }
                let folder = match openat(&top, &name, flags, Mode::empty()) {
                    // Another run of this was quicker.
                    Err(Errno::NOENT) => continue,
                    folder => folder?,
                };
                loop {
                    let below = self::names(&folder)?;
                    if below.is_empty() {
                        break;
                    }
                    for (child, is_folder) in below {
                        let gone = if is_folder && unlinkat(&folder, &child, AtFlags::REMOVEDIR).is_err() {
                            renameat(&folder, &child, &top, unique())
                        } else if is_folder {
                            Ok(())
                        } else {
                            unlinkat(&folder, &child, AtFlags::empty())
                        };
                        if let Err(error) = gone
                            && error != Errno::NOENT
                        {
                            return Err(error.into());
                        }
                    }
                }
                match unlinkat(&top, &name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// A name that nothing has.
pub(crate) fn unique() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Up to 4096 names in a folder, and whether each is a folder.
fn names(folder: &impl std::os::fd::AsFd) -> io::Result<Vec<(std::ffi::CString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        names.push((entry.file_name().to_owned(), kind == FileType::Directory));
        if names.len() == 4096 {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;

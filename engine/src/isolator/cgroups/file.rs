//! Reading and writing the small files of cgroups. They never block: the kernel makes them up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::CgroupError;

/// Writes values to files of one cgroup after the other; a file that gets several values in a row is opened once.
#[derive(Debug, Default)]
pub struct Writer {
    open: Option<(PathBuf, File)>,
}

impl Writer {
    /// Writes one value with one write(2), as the kernel wants it.
    pub fn write(&mut self, path: &Path, value: &str) -> Result<(), CgroupError> {
        let refused = |source| CgroupError::Refused { path: path.to_owned(), value: value.to_owned(), source };
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            let file = OpenOptions::new().write(true).open(path);
            self.open = Some((path.to_owned(), file.map_err(|e| CgroupError::io("opening", path, e))?));
        }
        let Some((_, file)) = &mut self.open else { return Ok(()) };
        // These files take all of a value or refuse it.
        file.write_all(value.as_bytes()).map_err(refused)
    }
}

/// Writes one value.
pub fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    Writer::default().write(path, value)
}

/// Reads a file, without the line end.
pub fn read(path: &Path) -> Result<String, CgroupError> {
    match fs::read_to_string(path) {
        Ok(mut text) => {
            text.truncate(text.trim_end().len());
            Ok(text)
        }
        Err(e) => Err(CgroupError::io("reading", path, e)),
    }
}

/// A number in a file; `None` if the file is not there, says `max`, or is no number.
pub fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim_end().parse().ok()
}

/// A number behind a word in a file of `word number` lines.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(word, _)| *word == key).and_then(|(_, number)| number.trim().parse().ok())
}

/// Whether an error says that something is not there.
pub fn is_absent(error: &io::Error) -> bool {
    // ENODEV: the cgroup went while its file was open.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(19)
}

/// The cgroups right below one.
pub fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

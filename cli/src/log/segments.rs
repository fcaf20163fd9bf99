//! The files of one log: the one that is written to, and those that were renamed before it. Kubelet renames `NAME` to
//! `NAME.YYYYMMDD-HHMMSS`, packs all but the newest of them with gzip (`.gz` behind), and removes the oldest.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use flate2::read::MultiGzDecoder;

/// What tells files apart, whatever they are called.
pub(super) type Inode = (u64, u64);

/// A file that was renamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    path: PathBuf,
    packed: bool,
    pub(super) inode: Inode,
    pub(super) written: SystemTime,
}

/// Which file this is.
pub(super) fn inode(file: &File) -> io::Result<Inode> {
    file.metadata().map(|data| (data.dev(), data.ino()))
}

/// The files that were renamed, oldest first.
pub(super) fn before(log: &Path) -> io::Result<Vec<Segment>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some((time, packed)) = entry.file_name().to_str().and_then(|entry| rotated(entry, name)) else { continue };
        // It may have been packed or removed meanwhile.
        let Ok(data) = entry.metadata() else { continue };
        let written = data.modified()?;
        found.push((time, Segment { path: entry.path(), packed, inode: (data.dev(), data.ino()), written }));
    }
    // While one is being packed it is there twice: the packed one comes second and goes.
    found.sort_by(|one, other| (&one.0, one.1.packed).cmp(&(&other.0, other.1.packed)));
    found.dedup_by(|later, earlier| later.0 == earlier.0);
    Ok(found.into_iter().map(|(_, segment)| segment).collect())
}

/// The time in the name of a renamed file, and whether it is packed.
fn rotated(entry: &str, name: &str) -> Option<(String, bool)> {
    let rest = entry.strip_prefix(name)?.strip_prefix('.')?;
    let (time, packed) = rest.strip_suffix(".gz").map_or((rest, false), |time| (time, true));
    let shape = |(at, byte): (usize, u8)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() };
    (time.len() == 15 && time.bytes().enumerate().all(shape)).then(|| (time.to_owned(), packed))
}

// === impl Segment ===

impl Segment {
    /// Its bytes, unpacked; `None` if it is gone.
    pub(super) fn open(&self) -> io::Result<Option<Box<dyn Read>>> {
        let packed = |file| Box::new(MultiGzDecoder::new(file)) as Box<dyn Read>;
        match File::open(&self.path) {
            Ok(file) if self.packed => Ok(Some(packed(file))),
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound && !self.packed => {
                // It was packed meanwhile.
                let path = self.path.with_added_extension("gz");
                match File::open(path) {
                    Ok(file) => Ok(Some(packed(file))),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The file itself, if it is not packed: it can be read from its end.
    pub(super) fn plain(&self) -> Option<File> {
        if self.packed { None } else { File::open(&self.path).ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::{Compression, write::GzEncoder};

    use super::{before, rotated};

    #[test]
    fn names_of_renamed_files() {
        assert_eq!(rotated("0.log.20260131-235959", "0.log"), Some(("20260131-235959".into(), false)));
        assert_eq!(rotated("0.log.20260131-235959.gz", "0.log"), Some(("20260131-235959".into(), true)));
        for other in [
            "0.log",
            "0.log.20260131-235959.tmp",
            "0.log.20260131-235959.gz.tmp",
            "1.log.20260131-235959",
            "0.log.1",
            "0.log.20260131_235959",
        ] {
            assert_eq!(rotated(other, "0.log"), None, "{other}");
        }
    }

    #[test]
    fn files_come_oldest_first_and_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let pack = |name: &str, text: &str| {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            std::fs::write(folder.path().join(name), packed.finish().unwrap()).unwrap();
        };
        pack("0.log.20260101-000000.gz", "a");
        pack("0.log.20260102-000000.gz", "b");
        std::fs::write(folder.path().join("0.log.20260102-000000"), "b").unwrap();
        std::fs::write(folder.path().join("0.log.20260103-000000"), "c").unwrap();
        std::fs::write(&log, "d").unwrap();
        let segments = before(&log).unwrap();
        // Packed between the look and the opening.
        pack("0.log.20260103-000000.gz", "c");
        std::fs::remove_file(folder.path().join("0.log.20260103-000000")).unwrap();
        let mut text = String::new();
        for segment in &segments {
            segment.open().unwrap().unwrap().read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "abc");
        assert!(before(&folder.path().join("none/0.log")).unwrap().is_empty());
    }
}

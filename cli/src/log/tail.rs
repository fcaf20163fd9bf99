//! The last lines of a file, without reading all of it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

const BLOCK: u64 = 64 << 10;

/// Opens a file at the beginning of its last lines; `None` if it is not there.
pub(super) fn open(path: &Path, lines: usize) -> io::Result<Option<File>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let start = start(&mut file, lines)?;
    file.seek(SeekFrom::Start(start))?;
    Ok(Some(file))
}

/// Where the last lines begin: behind the newline that ends the line before them.
fn start(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut from, mut found) = (end, 0);
    while from > 0 {
        let size = from.min(BLOCK);
        from -= size;
        let mut block = vec![0; usize::try_from(size).unwrap_or_default()];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let behind = from + index as u64 + 1;
            // The newline at the very end ends the last line; it does not begin one.
            if behind == end && lines > 0 {
                continue;
            }
            found += 1;
            if found >= lines {
                return Ok(behind);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    #[test]
    fn the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let last = |lines| {
            let mut text = String::new();
            super::open(&path, lines).unwrap().unwrap().read_to_string(&mut text).unwrap();
            text
        };
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(
            (last(1), last(2), last(3), last(9)),
            ("c\n".into(), "b\nc\n".into(), "a\nb\nc\n".into(), "a\nb\nc\n".into())
        );
        assert_eq!(last(0), "");
        let long: String = (0..30_000).map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, long).unwrap();
        assert_eq!(last(2), "29998\n29999\n");
        assert_eq!(last(20_000).lines().next(), Some("10000"));
        assert!(super::open(&folder.path().join("none"), 1).unwrap().is_none());
    }
}

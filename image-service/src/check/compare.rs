//! Holding the files of a layer against their record.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
};

use crate::record::{self, Found, Kind, Node};

/// Files of a layer that are told one by one; the others are only counted.
const MOST: usize = 50;

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// Path in the layer, and what is wrong with it.
    pub told: Vec<(String, String)>,
    pub count: usize,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Differences {
    fn tell(&mut self, path: &[u8], what: impl Into<String>) {
        self.count += 1;
        if self.told.len() < MOST {
            let path = if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() };
            self.told.push((path, what.into()));
        }
    }
}

/// The order in which a tree is walked: a folder before what is in it, and before names that begin with its own.
fn order<'a>(path: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// Compares the tree at `fs` with the record at `files`.
pub(super) fn compare(fs: &Path, files: &Path) -> io::Result<Differences> {
    let mut reader = record::open(files)?;
    let mut expected = reader.next()?;
    let mut differences = Differences::default();
    let mut links = Links::default();
    record::walk(fs, true, |found| {
        loop {
            match &expected {
                Some(node) if order(&node.path).lt(order(found.path)) => {
                    differences.tell(&node.path, format!("{} is missing", node.kind.name()));
                    expected = reader.next()?;
                }
                Some(node) if node.path == found.path => {
                    let wrong = changes(node, found, &mut links, &mut differences.bytes)?;
                    if !wrong.is_empty() {
                        differences.tell(found.path, wrong.join(", "));
                    }
                    expected = reader.next()?;
                    return Ok(());
                }
                _ => {
                    differences.tell(found.path, format!("{} was added", found.node()?.kind.name()));
                    return Ok(());
                }
            }
        }
    })?;
    while let Some(node) = expected {
        differences.tell(&node.path, format!("{} is missing", node.kind.name()));
        expected = reader.next()?;
    }
    Ok(differences)
}

/// Which inode each set of hard links is, and whose content is known to be right.
#[derive(Default)]
struct Links {
    inodes: HashMap<u64, u64>,
    read: HashSet<u64>,
}

/// What is not as it was.
fn changes(expected: &Node, found: &Found<'_>, links: &mut Links, bytes: &mut u64) -> io::Result<Vec<String>> {
    let node = found.node()?;
    if std::mem::discriminant(&node.kind) != std::mem::discriminant(&expected.kind) {
        return Ok(vec![format!("{} has become a {}", expected.kind.name(), node.kind.name())]);
    }
    let mut wrong = Vec::new();
    match (&expected.kind, &node.kind) {
        (Kind::File { size, .. }, Kind::File { size: now, .. }) if size != now => {
            wrong.push(format!("it has {now} bytes, not {size}"));
        }
        (Kind::File { size, hash }, Kind::File { .. }) => {
            if expected.links == 0 || links.read.insert(found.inode()) {
                *bytes += size;
                match found.hash() {
                    Ok(now) if now == *hash => {}
                    Ok(_) => wrong.push("its content was changed".to_owned()),
                    Err(error) => wrong.push(format!("its content cannot be read: {error}")),
                }
            }
        }
        (Kind::Folder, _) => {}
        (before, now) if before == now => {}
        _ => wrong.push("it leads elsewhere".to_owned()),
    }
    if expected.links > 0 && *links.inodes.entry(expected.links).or_insert(found.inode()) != found.inode() {
        wrong.push("it is no hard link to the same file any more".to_owned());
    }
    if node.mode != expected.mode {
        wrong.push(format!("its mode is {:04o}, not {:04o}", node.mode, expected.mode));
    }
    if (node.uid, node.gid) != (expected.uid, expected.gid) {
        wrong.push(format!("its owner is {}:{}, not {}:{}", node.uid, node.gid, expected.uid, expected.gid));
    }
    if node.xattrs != expected.xattrs {
        wrong.push("its extended attributes were changed".to_owned());
    }
    // A changed content or folder shows in the time as well; told alone it is what a container would see.
    if node.mtime != expected.mtime && wrong.is_empty() {
        wrong.push("its time was changed".to_owned());
    }
    Ok(wrong)
}

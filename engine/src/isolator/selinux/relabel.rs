//! Gives files of volumes the label of a container.
//!
//! A volume may be written to by others while its files are looked at: every step is one name below a folder that is
//! held open, and links are never followed, so that no label lands outside of the volume.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, XattrFlags, fstat, getxattr, openat, setxattr},
    io::Errno,
};

/// Where the kernel keeps the label of a file.
const XATTR: &str = "security.selinux";

/// Folders in folders, at most: two descriptors each.
const MAX_DEPTH: usize = 200;

/// What belongs to the node. A new label there would lock the node's own programs out.
const OF_THE_NODE: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why files keep their labels.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// the path belongs to the node
    #[error("{0} belongs to the node and is not relabelled: mount a folder below it, or do not ask for relabelling")]
    OfTheNode(PathBuf),
    /// too many folders in folders
    #[error("more than {MAX_DEPTH} folders in folders: label it on the node")]
    TooDeep,
    /// nobody waits any more
    #[error("stopped, as it took too long")]
    Stopped,
    /// a step failed
    #[error("{step}: {source}")]
    Step { step: &'static str, source: io::Error },
}

/// Labels `path` with all that is in it, what it leads to if it is a link. Files that have the label stay untouched, and
/// a filesystem that has no labels is left as it is.
pub fn relabel(path: &Path, label: &str, stop: &AtomicBool) -> Result<(), Refused> {
    let step = |step| move |error: Errno| Refused::Step { step, source: error.into() };
    let top = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(step("open it"))?;
    let real = std::fs::read_link(itself(&top)).map_err(|source| Refused::Step { step: "look at it", source })?;
    if OF_THE_NODE.iter().any(|place| real == Path::new(place)) {
        return Err(Refused::OfTheNode(real));
    }
    match walk(&top, label, stop, 0) {
        Err(Refused::Step { source, .. }) if source.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(()),
        result => result,
    }
}

/// What is inside first: who finds the label on a folder may believe that a walk has come to its end.
fn walk(file: &OwnedFd, label: &str, stop: &AtomicBool, depth: usize) -> Result<(), Refused> {
    let step = |step| move |error: Errno| Refused::Step { step, source: error.into() };
    if stop.load(Ordering::Relaxed) {
        return Err(Refused::Stopped);
    }
    if FileType::from_raw_mode(fstat(file).map_err(step("look at a file"))?.st_mode) == FileType::Directory {
        if depth == MAX_DEPTH {
            return Err(Refused::TooDeep);
        }
        let folder = openat(file, ".", FOLDER, Mode::empty()).map_err(step("open a folder"))?;
        for entry in Dir::read_from(&folder).map_err(step("read a folder"))? {
            let entry = entry.map_err(step("read a folder"))?;
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            match openat(&folder, entry.file_name(), HANDLE, Mode::empty()) {
                // Somebody has removed it meanwhile.
                Err(Errno::NOENT) => {}
                opened => walk(&opened.map_err(step("open a file"))?, label, stop, depth + 1)?,
            }
        }
    }
    set(file, label).map_err(step("label a file"))
}

fn set(file: &OwnedFd, label: &str) -> Result<(), Errno> {
    let path = itself(file);
    let mut present = [0; 256];
    let length = getxattr(&path, XATTR, &mut present[..]).unwrap_or(0);
    if present[..length].strip_suffix(b"\0").unwrap_or(&present[..length]) == label.as_bytes() {
        return Ok(());
    }
    setxattr(&path, XATTR, label.as_bytes(), XattrFlags::empty())
}

/// The file that a descriptor refers to, be it a link.
fn itself(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

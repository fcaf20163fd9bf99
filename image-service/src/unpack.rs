//! Turns a layer's tar stream into a folder that overlayfs can use as a lower layer.
//!
//! The archive is hostile until its digest is known, and then too: everything is done relative to folder descriptors
//! inside the staging folder, sizes are limited, and what is odd is refused by name.

pub(crate) mod archive;
mod attributes;
mod extract;
mod igzip;
mod stream;
pub(crate) mod tree;

use std::{ffi::OsString, io, os::unix::ffi::OsStringExt};

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(any(test, fuzzing))]
pub(crate) use extract::unpack;
pub(crate) use extract::unpack_recorded;
pub(crate) use igzip::{FROM as IGZIP_FROM, Igzip};
pub(crate) use stream::{TarStream, chunks, take};

use crate::record::Contents;

/// How names begin that say what a layer takes away.
const WHITEOUT: &[u8] = b".wh.";

/// What cannot be unpacked, and why.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The archive could not be read: the connection, the compression, or its end came too early.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// The file system refused.
    #[error("cannot {step} {path:?}")]
    Write {
        /// What was being done.
        step: &'static str,
        /// Path in the layer.
        path: OsString,
        /// Cause.
        source: io::Error,
    },
    /// The archive's structure is broken.
    #[error("the archive is broken: {0}")]
    Broken(&'static str),
    /// An entry that would leave the layer, or that nobody makes in good faith.
    #[error("the entry {path:?} is refused: {why}")]
    Refused {
        /// Path in the layer, as the archive has it.
        path: OsString,
        /// Why.
        why: &'static str,
    },
    /// More than the configuration allows.
    #[error("the layer has more than {limit} {what}: raise the limit in the configuration if it is meant to")]
    Limit {
        /// Bytes or entries.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// What has to stay free would not.
    #[error(
        "No space left for images: {free} of {total} bytes are free on the filesystem, and {floor} have to stay free by the \
         setting image.min_free_bytes: remove containers and images (`tripod image df`, `tripod image prune --all`), or \
         lower the setting"
    )]
    Full {
        /// Bytes.
        free: u64,
        /// Bytes.
        total: u64,
        /// Bytes.
        floor: u64,
    },
}

impl UnpackError {
    fn refused(path: &[u8], why: &'static str) -> Self {
        Self::Refused { path: os(path), why }
    }

    fn write(step: &'static str, path: &[u8], source: rustix::io::Errno) -> Self {
        Self::Write { step, path: os(path), source: source.into() }
    }
}

/// A path for messages, cut where it gets silly.
fn os(path: &[u8]) -> OsString {
    OsString::from_vec(path[..path.len().min(300)].to_vec())
}

/// What a layer turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    /// Mode and owner that the layer gives to the root folder, if it does.
    pub root: Option<RootAttributes>,
    /// The layer hides everything below it. Overlayfs does not ask roots, so such layers are the lowest that is mounted.
    pub opaque: bool,
    /// Folders that no entry named, but that entries lie in. They have no attributes of their own: those of the layer
    /// below count. (Names that are not UTF-8 are not remembered.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implied: Vec<String>,
    /// What it hides and the filesystem could not hold.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes on disk, estimated in blocks of 4 KiB.
    pub disk_bytes: u64,
    /// Files, folders and links.
    pub inodes: u64,
    /// What its record is made from.
    #[serde(skip)]
    pub contents: Contents,
}

/// What a layer hides of those below, where the filesystem takes no whiteouts in overlayfs's form (a device 0:0, an
/// attribute `trusted.overlay.opaque`). Only the provisioner `copy` can go by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// Paths that are gone.
    pub whiteouts: Vec<String>,
    /// Folders that have nothing of what lies below.
    pub opaque: Vec<String>,
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.whiteouts.is_empty() && self.opaque.is_empty()
    }
}

/// Mode and owner of a root folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootAttributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[cfg(test)]
mod tests;

//! What stays free while layers are unpacked, whose size nobody knows before.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Room;
use crate::unpack::UnpackError;

/// Bytes between two looks at the disk: fewer where there is little room.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 4 << 20;

/// The room that unpacking leaves.
#[derive(Debug, Clone)]
pub(crate) struct Floor {
    root: PathBuf,
    setting: u64,
    written: Option<Arc<AtomicU64>>,
}

impl Floor {
    /// Of a store, by `image.min_free_bytes`.
    pub(crate) fn new(root: PathBuf, setting: u64) -> Self {
        Self { root, setting, written: None }
    }

    /// Adds all that is written to a count as well.
    pub(crate) fn counted(&self, written: Arc<AtomicU64>) -> Self {
        Self { written: Some(written), ..self.clone() }
    }

    /// Counts what one layer writes.
    pub(crate) fn meter(&self) -> Watch<'_> {
        Watch { floor: self, left: LEAST }
    }
}

/// Looks at the disk now and then.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    floor: &'a Floor,
    /// Bytes until the next look.
    left: u64,
}

impl Watch<'_> {
    /// That so many bytes more were written is an error if too little room is left.
    pub(crate) fn wrote(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.left = self.left.saturating_sub(bytes);
        if let Some(written) = &self.floor.written {
            written.fetch_add(bytes, Ordering::Relaxed);
        }
        if self.left > 0 || self.floor.setting == 0 {
            return Ok(());
        }
        let room = Room::of(&self.floor.root).map_err(|source| {
            let path = self.floor.root.as_os_str().to_owned();
            UnpackError::Write { step: "see how full the disk is of", path, source }
        })?;
        let floor = room.floor(self.floor.setting);
        let Some(above) = room.free.checked_sub(floor) else {
            return Err(UnpackError::Full { free: room.free, total: room.total, floor });
        };
        // Other layers are written at the same time.
        self.left = (above / 4).clamp(LEAST, MOST);
        Ok(())
    }
}

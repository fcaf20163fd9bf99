//! Programs by what they were made from.

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::rules::{Action, Flags, Listener};
use crate::Result;

/// More profiles than a node has, times the sets of capabilities that its containers have. About 3 KiB each.
const MOST: usize = 64;

/// A program, and what it asks of the kernel and of the host.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) program: Arc<[u8]>,
    pub(super) actions: Arc<[Action]>,
    pub(super) flags: Flags,
    pub(super) listener: Option<Listener>,
}

/// The text of a profile and the capabilities of the container, by their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

/// The latest programs, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Mutex<Vec<(Key, Compiled)>>,
}

impl Key {
    /// `text` is empty for the default profile, which no file can be.
    pub(super) fn new(capabilities: u64, text: &[u8]) -> Self {
        Self(Sha256::new().chain_update(capabilities.to_le_bytes()).chain_update(text).finalize().into())
    }
}

impl Cache {
    /// What is kept, or what `make` makes.
    pub(super) fn get(&self, key: Key, make: impl FnOnce() -> Result<Compiled>) -> Result<Compiled> {
        if let Some(found) = self.find(key) {
            return Ok(found);
        }
        let made = make()?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == MOST {
            entries.remove(0);
        }
        entries.push((key, made.clone()));
        Ok(made)
    }

    fn find(&self, key: Key) -> Option<Compiled> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|(known, _)| *known == key)?;
        let entry = entries.remove(at);
        let found = entry.1.clone();
        entries.push(entry);
        Some(found)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }
}

//! `images.redb`, the names and images on disk.
//!
//! It has three tables. `meta`: `schema` (the version of this format, as decimal text) and `boot` (under which blobs were
//! last checked). `images`: image ID → [`ImageRecord`] as JSON. `names`: full reference → image ID.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{Database as Redb, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

use super::{Change, ImageRecord, State};
use crate::digest::Digest;

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");
const SCHEMA: u32 = 1;
const CACHE: usize = 1 << 20;

/// Why the database cannot be used.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// Another daemon has it.
    #[error("cannot open the image database {path}: is another tripod running with the same root folder?")]
    Open {
        /// The file.
        path: String,
        /// Cause.
        source: Box<redb::DatabaseError>,
    },
    /// A later version of tripod has written it.
    #[error(
        "the image database has format {found}, this tripod knows {SCHEMA} at most: use the newer tripod, or another root folder"
    )]
    Newer {
        /// Format in the file.
        found: String,
    },
    /// An operation failed: the disk is full or broken, or the file is damaged.
    #[error("the image database (images.redb) failed to {step}")]
    Database {
        /// What was tried.
        step: &'static str,
        /// Cause.
        source: Box<redb::Error>,
    },
    /// A record could not be written as JSON.
    #[error("a record cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

/// The file, which is opened anew after a failure.
pub(super) struct Database {
    path: PathBuf,
    /// None after a failure that did not let it be opened again.
    open: Mutex<Option<Redb>>,
}

impl Database {
    /// Opens the file, or makes it, and reads what is in it.
    pub(super) fn open(path: &Path) -> Result<(Self, State), CatalogError> {
        let database = open(path)?;
        let mut state = State::default();
        let write = database.begin_write().map_err(failed("begin"))?;
        {
            let mut meta = write.open_table(META).map_err(failed("open a table"))?;
            let found = meta.get("schema").map_err(failed("read"))?.map(|found| found.value().to_owned());
            match found {
                None => {
                    meta.insert("schema", SCHEMA.to_string().as_str()).map_err(failed("write"))?;
                }
                Some(found) if found.parse() == Ok(SCHEMA) => {}
                Some(found) => return Err(CatalogError::Newer { found }),
            }
            let images = write.open_table(IMAGES).map_err(failed("open a table"))?;
            for item in images.iter().map_err(failed("read"))? {
                let (_, value) = item.map_err(failed("read"))?;
                let record: ImageRecord = serde_json::from_slice(value.value())?;
                state.images.insert(record.id.clone(), Arc::new(record));
            }
            let names = write.open_table(NAMES).map_err(failed("open a table"))?;
            for item in names.iter().map_err(failed("read"))? {
                let (name, id) = item.map_err(failed("read"))?;
                if let Ok(id) = id.value().parse::<Digest>()
                    && state.images.contains_key(&id)
                {
                    state.names.insert(name.value().to_owned(), id);
                }
            }
        }
        write.commit().map_err(failed("commit"))?;
        Ok((Self { path: path.to_owned(), open: Mutex::new(Some(database)) }, state))
    }

    /// The boot under which blobs were last checked.
    pub(super) fn checked_boot(&self) -> Result<Option<String>, CatalogError> {
        self.with(|database| {
            let read = database.begin_read().map_err(failed("begin"))?;
            let meta = read.open_table(META).map_err(failed("open a table"))?;
            Ok(meta.get("boot").map_err(failed("read"))?.map(|boot| boot.value().to_owned()))
        })
    }

    pub(super) fn record_checked_boot(&self, boot: &str) -> Result<(), CatalogError> {
        self.with(|database| {
            let write = database.begin_write().map_err(failed("begin"))?;
            write.open_table(META).map_err(failed("open a table"))?.insert("boot", boot).map_err(failed("write"))?;
            write.commit().map_err(failed("commit"))
        })
    }

    /// Makes a change, whole or not at all.
    pub(super) fn write(&self, change: &Change) -> Result<(), CatalogError> {
        self.with(|database| {
            let write = database.begin_write().map_err(failed("begin"))?;
            {
                let mut images = write.open_table(IMAGES).map_err(failed("open a table"))?;
                for record in &change.put {
                    let bytes = serde_json::to_vec(record)?;
                    images.insert(record.id.to_string().as_str(), bytes.as_slice()).map_err(failed("write"))?;
                }
                for id in &change.drop {
                    images.remove(id.to_string().as_str()).map_err(failed("write"))?;
                }
                let mut names = write.open_table(NAMES).map_err(failed("open a table"))?;
                for name in &change.unname {
                    names.remove(name.as_str()).map_err(failed("write"))?;
                }
                for (name, id) in &change.name {
                    names.insert(name.as_str(), id.to_string().as_str()).map_err(failed("write"))?;
                }
            }
            write.commit().map_err(failed("commit"))
        })
    }

    /// Works on the database. Once the disk has failed, redb refuses everything until its file is opened anew, which is
    /// done here, at once or by the next that comes: there may be room again by then.
    fn with<T>(&self, work: impl FnOnce(&Redb) -> Result<T, CatalogError>) -> Result<T, CatalogError> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        let outcome = work(&database);
        *slot = match &outcome {
            Err(CatalogError::Database { .. }) => {
                drop(database);
                open(&self.path).ok()
            }
            _ => Some(database),
        };
        outcome
    }
}

fn failed<E: Into<redb::Error>>(step: &'static str) -> impl Fn(E) -> CatalogError {
    move |error| CatalogError::Database { step, source: Box::new(error.into()) }
}

fn open(path: &Path) -> Result<Redb, CatalogError> {
    Redb::builder().set_cache_size(CACHE).create(path).map_err(|source| match source {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            CatalogError::Open { path: path.display().to_string(), source: Box::new(source) }
        }
        source => failed("open")(source),
    })
}

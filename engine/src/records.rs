//! The records on disk: `ROOT/state.redb`.
//!
//! One thread writes; whoever waits for it shares a commit with everybody else who waits. Commits reach the page cache and
//! are not synced ([`backend`]): a record survives the daemon at any moment, and a reboot; a crash of the whole node may
//! take the database with it, and then it is set aside and kubelet makes its pods anew, which it must after a crash anyway.

mod backend;

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use crate::{ContainerId, ContainerRecord, Error, Kind, PodId, PodRecord, Result};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const PODS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("pods");
const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");

/// Version of the tables and of the JSON in them.
const SCHEMA: &str = "1";

/// Pages that redb may keep in memory. All records are in memory already as snapshots.
const CACHE_BYTES: usize = 1 << 20;

/// The writer of records.
#[derive(Debug)]
pub(crate) struct Records {
    jobs: mpsc::Sender<Job>,
}

/// What was found on disk.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub pods: Vec<PodRecord>,
    pub containers: Vec<ContainerRecord>,
    /// The boot under which the records were written last.
    pub boot_id: Option<String>,
}

#[derive(Debug)]
struct Job {
    change: Change,
    done: oneshot::Sender<Result<()>>,
}

#[derive(Debug)]
enum Change {
    PutPod(String, Vec<u8>),
    RemovePod(String),
    PutContainer(String, Vec<u8>),
    RemoveContainer(String),
    Boot(String),
}

impl Records {
    /// Opens the database below `root`, sets a broken one aside, and reads every record.
    pub fn open(root: &Path) -> Result<(Self, Loaded)> {
        let path = root.join("state.redb");
        let (database, loaded) = match open(&path).and_then(|database| Ok((load(&database, &path)?, database))) {
            Ok((loaded, database)) => (database, loaded),
            Err(error) if error.kind() == Kind::FailedPrecondition => return Err(error),
            Err(error) => {
                let aside = set_aside(&path)?;
                tracing::error!(%error, aside = %aside.display(), "the records were unreadable and have been set aside: pods from before are removed");
                let database = open(&path)?;
                (database, Loaded::default())
            }
        };
        let (jobs, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("tripod-records".into())
            .spawn(move || write_all(database, &path, &queue))
            .map_err(|error| Error::io("start the thread that writes records", error))?;
        Ok((Self { jobs }, loaded))
    }

    /// Stores a pod.
    pub async fn put_pod(&self, pod: &PodRecord) -> Result<()> {
        self.submit(Change::PutPod(pod.id.to_string(), json(pod)?)).await
    }

    /// Forgets a pod.
    pub async fn remove_pod(&self, pod: &PodId) -> Result<()> {
        self.submit(Change::RemovePod(pod.to_string())).await
    }

    /// Stores a container.
    pub async fn put_container(&self, container: &ContainerRecord) -> Result<()> {
        self.submit(Change::PutContainer(container.id.to_string(), json(container)?)).await
    }

    /// Forgets a container.
    pub async fn remove_container(&self, container: &ContainerId) -> Result<()> {
        self.submit(Change::RemoveContainer(container.to_string())).await
    }

    /// Notes the boot under which this daemon runs.
    pub async fn put_boot(&self, boot_id: &str) -> Result<()> {
        self.submit(Change::Boot(boot_id.to_owned())).await
    }

    async fn submit(&self, change: Change) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = || Error::new(Kind::Internal, "the thread that writes records has ended: restart tripod");
        self.jobs.send(Job { change, done }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn json<T: serde::Serialize>(record: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|error| Error::with(Kind::Internal, "encode a record", error))
}

fn database_error(path: &Path, error: impl Into<redb::Error>) -> Error {
    Error::with(Kind::Internal, format!("read {}", path.display()), error.into())
}

fn open(path: &Path) -> Result<Database> {
    let backend =
        backend::PageCache::open(path).map_err(|error| Error::io(format!("open {}", path.display()), error))?;
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(backend)
        .map_err(|error| database_error(path, error))
}

fn load(database: &Database, path: &Path) -> Result<Loaded> {
    check_schema(database, path)?;
    let wrap = |error: redb::Error| database_error(path, error);
    let read = database.begin_read().map_err(|error| wrap(error.into()))?;
    let mut loaded = Loaded::default();
    let meta = read.open_table(META).map_err(|error| wrap(error.into()))?;
    loaded.boot_id = meta.get("boot").map_err(|error| wrap(error.into()))?.map(|value| value.value().to_owned());
    let pods = read.open_table(PODS).map_err(|error| wrap(error.into()))?;
    for entry in pods.iter().map_err(|error| wrap(error.into()))? {
        let (key, value) = entry.map_err(|error| wrap(error.into()))?;
        loaded.pods.extend(decode(key.value(), value.value()));
    }
    let containers = read.open_table(CONTAINERS).map_err(|error| wrap(error.into()))?;
    for entry in containers.iter().map_err(|error| wrap(error.into()))? {
        let (key, value) = entry.map_err(|error| wrap(error.into()))?;
        loaded.containers.extend(decode(key.value(), value.value()));
    }
    Ok(loaded)
}

/// A record that cannot be read is left out: what belonged to it is then unknown, and removed.
fn decode<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).map_err(|error| tracing::error!(%error, key, "a record is unreadable")).ok()
}

/// Makes the tables of a new database; refuses one that a newer tripod wrote.
fn check_schema(database: &Database, path: &Path) -> Result<()> {
    let wrap = |error: redb::Error| database_error(path, error);
    let write = database.begin_write().map_err(|error| wrap(error.into()))?;
    {
        let mut meta = write.open_table(META).map_err(|error| wrap(error.into()))?;
        let found = meta.get("schema").map_err(|error| wrap(error.into()))?.map(|value| value.value().to_owned());
        match found.as_deref() {
            None => {
                meta.insert("schema", SCHEMA).map_err(|error| wrap(error.into()))?;
            }
            Some(SCHEMA) => {}
            Some(other) => {
                return Err(Error::new(
                    Kind::FailedPrecondition,
                    format!(
                        "{} has schema {other}, this tripod knows {SCHEMA}: run the version that wrote it, or remove all pods with that one first",
                        path.display()
                    ),
                ));
            }
        }
        write.open_table(PODS).map_err(|error| wrap(error.into()))?;
        write.open_table(CONTAINERS).map_err(|error| wrap(error.into()))?;
    }
    write.commit().map_err(|error| wrap(error.into()))
}

fn set_aside(path: &Path) -> Result<PathBuf> {
    let aside = path.with_extension("redb.broken");
    std::fs::rename(path, &aside).map_err(|error| Error::io(format!("set {} aside", path.display()), error))?;
    Ok(aside)
}

/// The writer's loop: one commit for all that wait. Once the disk has failed, redb refuses everything until its file is
/// opened anew, which is done here, at once or for the next that comes: there may be room again by then.
fn write_all(database: Database, path: &Path, queue: &mpsc::Receiver<Job>) {
    let mut database = Some(database);
    while let Ok(first) = queue.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
        let opened = match database.take() {
            Some(database) => Ok(database),
            None => open(path),
        };
        let result = opened.and_then(|opened| match commit(&opened, &jobs) {
            Ok(()) => {
                database = Some(opened);
                Ok(())
            }
            Err(error) => {
                drop(opened);
                database = open(path).ok();
                Err(write_error(path, error))
            }
        });
        for job in jobs {
            // Whoever asked may have gone; the record is written all the same.
            let _ = job.done.send(result.clone());
        }
    }
}

fn write_error(path: &Path, error: redb::Error) -> Error {
    let step = format!("write a record to {}", path.display());
    match error {
        redb::Error::Io(error) => Error::io(step, error),
        error => Error::with(Kind::Internal, step, error),
    }
}

fn commit(database: &Database, jobs: &[Job]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        let mut pods = write.open_table(PODS)?;
        let mut containers = write.open_table(CONTAINERS)?;
        for job in jobs {
            match &job.change {
                Change::PutPod(key, value) => drop(pods.insert(key.as_str(), value.as_slice())?),
                Change::RemovePod(key) => drop(pods.remove(key.as_str())?),
                Change::PutContainer(key, value) => drop(containers.insert(key.as_str(), value.as_slice())?),
                Change::RemoveContainer(key) => drop(containers.remove(key.as_str())?),
                Change::Boot(id) => drop(meta.insert("boot", id.as_str())?),
            }
        }
    }
    write.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;

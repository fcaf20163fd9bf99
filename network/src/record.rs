//! What must be undone for each pod: one small JSON file a pod, written before anything is made.
//!
//! A file is replaced by renaming, without waiting for the disk: a killed daemon finds it, and after a power cut the
//! namespaces are gone anyway. The folder is `ROOT/network`.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tripod_engine::{Error, PodId, PortMapping, Result};

/// A pod with a network of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// How it got its network.
    pub(crate) attachment: Attachment,
    /// Its addresses, the primary one first. On the bridge these are the leases.
    #[serde(default)]
    pub(crate) addresses: Vec<IpNet>,
    /// Ports of the host that our own rules lead to it.
    #[serde(default)]
    pub(crate) ports: Vec<PortMapping>,
    /// It must go; nobody will ask for it again.
    #[serde(default)]
    pub(crate) doomed: bool,
}

impl Record {
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }
}

/// How a pod got its network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Attachment {
    /// A port of the built-in bridge, by the name of the host's end.
    Bridge {
        /// Name of the interface on the host.
        link: String,
    },
    /// CNI plugins; all that DEL needs, even if the configuration has changed since.
    Cni {
        /// The list as it was used.
        list: Box<crate::cni::List>,
        /// `CNI_ARGS`.
        args: String,
        /// What plugins with capabilities were given.
        runtime: Map<String, Value>,
        /// What ADD answered.
        result: Option<Value>,
    },
}

/// The folder of records.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    /// Tells apart files that are being written at the same time.
    writes: AtomicU64,
}

const CURSORS: &str = "cursors";
const POD_CIDR: &str = "pod-cidr";

impl Store {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let dir = root.join("network");
        fs::create_dir_all(&dir).map_err(|error| Error::io(format!("making the folder {}", dir.display()), error))?;
        Ok(Self { dir, writes: AtomicU64::new(0) })
    }

    /// All records, and the pods whose record cannot be read; those files are put aside.
    pub(crate) fn load(&self) -> Result<(BTreeMap<PodId, Record>, Vec<PodId>)> {
        let failed = |error| Error::io(format!("reading the folder {}", self.dir.display()), error);
        let (mut records, mut broken) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(".new") {
                let _ = fs::remove_file(self.dir.join(name));
            }
            let Some(pod) = name.strip_suffix(".json").and_then(PodId::parse) else { continue };
            match self.read(name) {
                Ok(Some(record)) => drop(records.insert(pod, record)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%pod, %error, "the record of a pod's network cannot be read and is put aside");
                    let _ = fs::rename(self.dir.join(name), self.dir.join(format!("{pod}.broken")));
                    broken.push(pod);
                }
            }
        }
        Ok((records, broken))
    }

    pub(crate) fn write(&self, pod: &PodId, record: &Record) -> Result<()> {
        self.replace(&format!("{pod}.json"), record)
    }

    pub(crate) fn remove(&self, pod: &PodId) -> Result<()> {
        let path = self.dir.join(format!("{pod}.json"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn cursors(&self) -> crate::ipam::Cursors {
        self.read(CURSORS).ok().flatten().unwrap_or_default()
    }

    pub(crate) fn write_cursors(&self, cursors: &crate::ipam::Cursors) -> Result<()> {
        self.replace(CURSORS, cursors)
    }

    /// The address ranges that kubelet handed over last; it does not repeat them for a daemon that restarts.
    pub(crate) fn pod_cidr(&self) -> Result<Vec<IpNet>> {
        Ok(self.read(POD_CIDR)?.unwrap_or_default())
    }

    pub(crate) fn write_pod_cidr(&self, ranges: &[IpNet]) -> Result<()> {
        self.replace(POD_CIDR, &ranges)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.dir.join(name);
        let failed = |error: io::Error| Error::io(format!("reading {}", path.display()), error);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            bytes => serde_json::from_slice(&bytes.map_err(failed)?).map(Some).map_err(|error| failed(error.into())),
        }
    }

    fn replace(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.dir.join(name);
        let new = self.dir.join(format!("{name}.{}.new", self.writes.fetch_add(1, Ordering::Relaxed)));
        let failed = |error: io::Error| Error::io(format!("writing {}", path.display()), error);
        let bytes = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(error)
        })
    }
}

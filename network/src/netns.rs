//! Files of network namespaces: `DIR/INSTANCE-POD`, each with the namespace mounted on it, which keeps it alive
//! without any process.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    mount::UnmountFlags,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};
use tripod_engine::{Error, PodId, Result};

/// The calling thread's own namespace; `/proc/self` would be that of the process's first thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespaces of one daemon.
#[derive(Debug)]
pub(crate) struct Namespaces {
    dir: PathBuf,
    prefix: String,
}

impl Namespaces {
    pub(crate) fn new(dir: &Path, instance: &str) -> Self {
        Self { dir: dir.to_owned(), prefix: format!("{instance}-") }
    }

    /// Where a pod's namespace is.
    pub(crate) fn path(&self, pod: &PodId) -> PathBuf {
        self.dir.join(format!("{}{pod}", self.prefix))
    }

    /// Moves the calling thread into a new namespace, or the one that was `made` for the pod, and mounts it. The thread
    /// must be one that ends soon and does nothing else: it cannot come back.
    pub(crate) fn create(&self, pod: &PodId, made: Option<&OwnedFd>) -> Result<OwnedFd> {
        let path = self.path(pod);
        let failed = |step: &str, error: io::Error| Error::io(format!("{step} {}", path.display()), error);
        fs::create_dir_all(&self.dir).map_err(|error| failed("making the folder of", error))?;
        match made {
            None => tripod_sys::namespace::unshare(UnshareFlags::NEWNET),
            Some(made) => move_into_link_name_space(made.as_fd(), Some(LinkNameSpaceType::Network)).map_err(Into::into),
        }
        .map_err(|error| failed("making the network namespace", error))?;
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
        drop(file.map_err(|error| failed("making the file", error))?);
        if let Err(error) = rustix::mount::mount_bind(OWN, &path) {
            let _ = fs::remove_file(&path);
            return Err(failed("mounting the network namespace on", error.into()));
        }
        open(OWN.as_ref()).map_err(|error| failed("opening the network namespace", error))
    }

    /// Whether the pod's namespace is there; after a reboot it is not.
    pub(crate) fn exists(&self, pod: &PodId) -> bool {
        is_namespace(&self.path(pod))
    }

    /// Opens a pod's namespace.
    pub(crate) fn open(&self, pod: &PodId) -> io::Result<OwnedFd> {
        open(&self.path(pod))
    }

    /// Removes a pod's namespace, if it is there. It ends with the last process in it.
    pub(crate) fn remove(&self, pod: &PodId) -> Result<()> {
        let path = self.path(pod);
        let failed = |step: &str, error: io::Error| Error::io(format!("{step} {}", path.display()), error);
        // Whoever mounted twice is undone twice; the limit only guards against a mount that comes back for ever.
        for _ in 0..16 {
            match rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(error) => return Err(failed("unmounting the network namespace", error.into())),
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", error)),
            _ => Ok(()),
        }
    }

    /// The pods of this daemon that have a namespace.
    pub(crate) fn list(&self) -> Result<Vec<PodId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io(format!("listing {}", self.dir.display()), error))?,
        };
        let pod = |name: &str| PodId::parse(name.strip_prefix(&self.prefix)?);
        Ok(entries.flatten().filter_map(|entry| pod(entry.file_name().to_str()?)).collect())
    }
}

/// Whether a path is a namespace file that is mounted.
fn is_namespace(path: &Path) -> bool {
    /// Magic number of nsfs.
    const NSFS: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type) == Ok(NSFS))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

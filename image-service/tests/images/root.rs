//! A store in a folder of its own.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tripod_engine::{
    Error,
    plugin::{Provisioner, RootFs},
};
use tripod_image_service::{Config, Image, ImageService, PullRequest, Timeouts};

/// A store, and the folder with its registries' settings.
pub struct Root {
    pub folder: Folder,
    pub images: ImageService,
}

impl Root {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let folder = Folder(tempfile::tempdir().unwrap());
        let images = ImageService::open(config(folder.path(), adjust)).await.unwrap();
        Self { folder, images }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub async fn pull(&self, reference: &str) -> Result<Image, Error> {
        self.images.pull(PullRequest { reference: reference.to_owned(), ..PullRequest::default() }).await
    }

    /// Nothing may be left of a pull that failed, but for other layers that were good.
    pub fn assert_no_leftovers(&self) {
        let entries = std::fs::read_dir(self.path().join("staging")).unwrap();
        let left: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// All provisioners, `overlay` first.
pub fn both(root: &Root) -> [Box<dyn Provisioner>; 2] {
    [Box::new(root.images.overlay()), Box::new(root.images.copy())]
}

/// A folder that is gone with this value, even if the store's background work still writes into it.
pub struct Folder(TempDir);

impl Folder {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for _ in 0..100 {
            let _ = std::fs::remove_dir_all(self.0.path());
            std::thread::sleep(Duration::from_millis(30));
            if !self.0.path().exists() {
                return;
            }
        }
        assert!(std::thread::panicking(), "{} cannot be removed", self.0.path().display());
    }
}

pub fn config(folder: &Path, adjust: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config {
        root: folder.join("root"),
        certs_dir: folder.join("certs.d"),
        timeouts: Timeouts {
            connect_seconds: 10,
            response_seconds: 20,
            stall_seconds: 10,
            minimum_rate: 100,
            attempts: 3,
            backoff_milliseconds: 20,
        },
        ..Config::default()
    };
    adjust(&mut config);
    config
}

/// Where the content of a root filesystem can be seen.
pub fn visible(mount: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", mount.as_raw_fd()).into()
}

pub fn detached(root: RootFs) -> OwnedFd {
    match root {
        RootFs::Detached(mount) => mount,
        RootFs::Path(path) => panic!("not a detached mount: {}", path.display()),
    }
}

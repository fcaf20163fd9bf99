//! A pod and a container for the tests of isolators, with a folder and a root filesystem of their own.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tripod_shim_protocol::LaunchPlan;

use crate::{
    ContainerConfig, ContainerId, PodConfig, PodId, Result,
    plugin::{ContainerContext, Isolator, PodContext, PodSetup},
};

#[derive(Debug)]
pub struct Fixture {
    pub pod_id: PodId,
    pub id: ContainerId,
    pub pod: PodConfig,
    pub config: ContainerConfig,
    temp: TempDir,
    rootfs: File,
}

impl Fixture {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        for dir in ["pod", "root", "root/etc"] {
            std::fs::create_dir(temp.path().join(dir)).expect("a folder");
        }
        let rootfs = File::open(temp.path().join("root")).expect("the root");
        let (pod, config) = (PodConfig::default(), ContainerConfig::default());
        Self { pod_id: PodId::random(), id: ContainerId::random(), pod, config, temp, rootfs }
    }

    /// The pod's folder.
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("pod")
    }

    /// The container's root on the host.
    pub fn root(&self) -> PathBuf {
        self.temp.path().join("root")
    }

    /// A path beside both, for sources on the host.
    pub fn host(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Writes a file of the container.
    pub fn write(&self, path: impl AsRef<Path>, text: &str) {
        std::fs::write(self.root().join(path), text).expect("a file of the root");
    }

    pub async fn prepare_pod(&self, isolator: &dyn Isolator) -> Result<PodSetup> {
        let mut setup = PodSetup::default();
        self.prepare_pod_into(isolator, &mut setup).await.map(|()| setup)
    }

    pub async fn prepare_pod_into(&self, isolator: &dyn Isolator, setup: &mut PodSetup) -> Result<()> {
        let dir = self.dir();
        isolator.prepare_pod(PodContext { id: &self.pod_id, config: &self.pod, dir: &dir }, setup).await
    }

    pub async fn prepare(&self, isolator: &dyn Isolator) -> Result<LaunchPlan> {
        let mut plan = LaunchPlan::default();
        self.prepare_into(isolator, &mut plan).await.map(|()| plan)
    }

    pub async fn prepare_into(&self, isolator: &dyn Isolator, plan: &mut LaunchPlan) -> Result<()> {
        let dir = self.dir();
        let pod = PodContext { id: &self.pod_id, config: &self.pod, dir: &dir };
        let context = ContainerContext { id: &self.id, config: &self.config, pod, rootfs: self.rootfs.as_fd() };
        isolator.prepare(context, plan).await
    }
}

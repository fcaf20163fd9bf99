//! The three kinds of plugin that the engine stands on.
//!
//! *Isolators* write plans, *provisioners* turn images into root filesystems, *launchers* carry plans out. The engine
//! knows them by these traits only; which ones there are is decided in one place, the daemon's `compose.rs`.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tripod_shim_protocol::{ExecPlan, LaunchPlan, PodPlan, Reply, Resources, UserMapping};

use crate::{
    ContainerConfig, ContainerId, Error, Kind, PodConfig, PodId, Result,
    shim::Shim,
    usage::{PodUsage, Usage, WritableLayer},
};

/// Everything that the engine knows after a restart; a plugin removes what it finds of others.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Pods with a record, whatever their state.
    pub pods: BTreeSet<PodId>,
    /// Those of them whose shim still runs.
    pub live_pods: BTreeSet<PodId>,
    /// Containers with a record.
    pub containers: BTreeSet<ContainerId>,
}

/// A pod while it is being made.
#[derive(Debug, Clone, Copy)]
pub struct PodContext<'a> {
    /// Its ID.
    pub id: &'a PodId,
    /// What was asked for.
    pub config: &'a PodConfig,
    /// Its folder below the state folder, for files that live as long as the pod.
    pub dir: &'a Path,
}

/// What isolators make of a pod: the shim's plan, and what the status shows.
#[derive(Debug, Clone, Default)]
pub struct PodSetup {
    /// Goes to the shim.
    pub plan: PodPlan,
    /// PID of the pod's shim, which has been started already.
    pub shim: i32,
    /// The pod's addresses, the primary one first; empty on the host's network.
    pub ips: Vec<IpAddr>,
    /// A network namespace that belongs to the pod's user namespace: the one to use, where it is given.
    pub network: Option<Arc<OwnedFd>>,
}

/// A container while it is being made.
#[derive(Debug, Clone, Copy)]
pub struct ContainerContext<'a> {
    /// Its ID.
    pub id: &'a ContainerId,
    /// What was asked for.
    pub config: &'a ContainerConfig,
    /// Its pod.
    pub pod: PodContext<'a>,
    /// The root of its filesystem, for looking things up in it (never by joining paths: `sys::inroot`).
    pub rootfs: BorrowedFd<'a>,
}

/// One concern of isolation over the whole life of pods and containers.
///
/// Isolators prepare in the order in which they are composed and clean up in reverse.
#[async_trait]
pub trait Isolator: fmt::Debug + Send + Sync {
    /// One word, unique among all isolators.
    fn name(&self) -> &'static str;

    /// After a restart of the daemon: takes up what belongs to known pods and containers, removes the rest of its own.
    async fn recover(&self, _known: &Known) -> Result<()> {
        Ok(())
    }

    /// Before the shim enters the pod's namespaces: writes its part of the plan, and may make what the pod needs
    /// outside of any process. When it fails it has undone what it made.
    async fn prepare_pod(&self, _pod: PodContext<'_>, _setup: &mut PodSetup) -> Result<()> {
        Ok(())
    }

    /// Undoes [`Self::prepare_pod`], when the pod stops or could not be made. Idempotent; unknown IDs are fine.
    async fn cleanup_pod(&self, _pod: &PodId) -> Result<()> {
        Ok(())
    }

    /// The SELinux label of what is mounted for a container. Asked before its root filesystem is made.
    fn mount_label(&self, _pod: PodContext<'_>, _config: &ContainerConfig) -> Result<Option<String>> {
        Ok(None)
    }

    /// Writes its part of a container's plan. Nothing of the container exists yet but its root filesystem.
    async fn prepare(&self, _container: ContainerContext<'_>, _plan: &mut LaunchPlan) -> Result<()> {
        Ok(())
    }

    /// Adds to the OCI runtime specification of a container what its plan has only in the kernel's own form.
    async fn spec(&self, _config: &ContainerConfig, _plan: &LaunchPlan, _spec: &mut serde_json::Value) -> Result<()> {
        Ok(())
    }

    /// Changes the limits of a container to what `new` names; all or nothing. `plan` has the limits that hold now; it is
    /// the caller's to store the new ones. `running` is false for a container that was not started.
    async fn update(&self, _plan: &LaunchPlan, _new: &Resources, _running: bool) -> Result<()> {
        Ok(())
    }

    /// After the end of a container: the limit that it ran into, if it did.
    async fn limitation(&self, _plan: &LaunchPlan) -> Option<Limitation> {
        None
    }

    /// How often [`Self::watch`] wants to be asked about each running container; `None` is never.
    fn watch_interval(&self) -> Option<Duration> {
        None
    }

    /// Whether a running container is above a limit that the kernel does not hold by itself. It is killed then, and its
    /// status tells this reason.
    async fn watch(&self, _container: &ContainerId, _plan: &LaunchPlan) -> Result<Option<Limitation>> {
        Ok(None)
    }

    /// Kills every process that is left of a container whose first process has ended, and waits for their end.
    async fn kill_rest(&self, _plan: &LaunchPlan) -> Result<()> {
        Ok(())
    }

    /// Adds what it can measure of a running container. Must not block for long.
    fn usage(&self, _plan: &LaunchPlan, _usage: &mut Usage) {}

    /// Adds what it can measure of a pod as a whole.
    fn pod_usage(&self, _pod: PodContext<'_>, _usage: &mut PodUsage) {}

    /// Removes everything of a container. Idempotent; unknown IDs are fine.
    async fn cleanup(&self, _container: &ContainerId, _plan: Option<&LaunchPlan>) -> Result<()> {
        Ok(())
    }

    /// State that operators should see: warnings about the host, readiness of the network.
    async fn status(&self) -> IsolatorStatus {
        IsolatorStatus::default()
    }

    /// The address range for pods that kubelet was given, if this isolator gives out addresses.
    async fn set_pod_cidr(&self, _cidr: &str) -> Result<()> {
        Ok(())
    }
}

/// What an isolator says of itself.
#[derive(Debug, Clone, Default)]
pub struct IsolatorStatus {
    /// Why pods cannot run because of it, if so.
    pub not_ready: Option<String>,
    /// Key and value for the verbose status.
    pub details: Vec<(String, String)>,
}

/// A limit that a container ran into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limitation {
    /// Reason for the status, as `OOMKilled`; `None` where it was the program that gave up.
    pub reason: Option<String>,
    /// For people.
    pub message: String,
}

/// The user namespace of a pod, for showing files with its IDs.
#[derive(Debug)]
pub struct MappedIds {
    /// Where its IDs lie on the host.
    pub mapping: UserMapping,
    /// The namespace.
    pub namespace: OwnedFd,
}

/// A root filesystem.
#[derive(Debug)]
pub enum RootFs {
    /// A mount that is attached nowhere; it lives as long as somebody holds the descriptor.
    Detached(OwnedFd),
    /// A path on the host.
    Path(PathBuf),
}

/// Turns images into root filesystems.
#[async_trait]
pub trait Provisioner: fmt::Debug + Send + Sync {
    /// One word.
    fn name(&self) -> &'static str;

    /// After a restart: removes writable layers of containers that are not known.
    async fn recover(&self, _known: &Known) -> Result<()> {
        Ok(())
    }

    /// The SELinux label of all that is mounted for a container from now on, until [`Self::destroy`].
    fn label(&self, _container: &ContainerId, _label: &str) {}

    /// A root filesystem with the image below and a writable layer of the container's own on top. The layers are in
    /// use from here until [`Self::destroy`], even if the image is removed. May be called again for a container that
    /// was not started (after a restart of the daemon): the writable layer is kept. With `ids`, what belongs to 0 in the
    /// image belongs to the root of that user namespace, and nothing that is stored is changed for it.
    async fn provision(&self, image: &str, container: &ContainerId, ids: Option<&MappedIds>) -> Result<RootFs>;

    /// An image as a read-only volume of a container, as a detached mount.
    async fn volume(
        &self,
        image: &str,
        sub_path: &Path,
        container: &ContainerId,
        ids: Option<&MappedIds>,
    ) -> Result<OwnedFd>;

    /// What the writable layer uses. A count that is no older than `age` will do, as will any that took so long that
    /// making it again so soon would keep the disk busy.
    async fn usage(&self, container: &ContainerId, age: Duration) -> Result<WritableLayer>;

    /// Has the kernel hold what is written from now on to this many bytes; gives whether it does. Asked before the
    /// container starts. Where it does not, isolators look after the limit alone.
    async fn limit(&self, _container: &ContainerId, _bytes: u64) -> Result<bool> {
        Ok(false)
    }

    /// Bytes that may still be written, where the kernel holds the writable layer to a limit.
    async fn left(&self, _container: &ContainerId) -> Option<u64> {
        None
    }

    /// Removes the writable layer and lets go of the image. Idempotent; unknown IDs are fine.
    async fn destroy(&self, container: &ContainerId) -> Result<()>;
}

/// A started process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// PID on the host.
    pub pid: i32,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// Microseconds of each step of the start.
    pub stages: std::collections::BTreeMap<String, u64>,
}

impl TryFrom<Reply> for Task {
    type Error = Error;

    fn try_from(reply: Reply) -> Result<Self> {
        match reply {
            Reply::Started { pid, started_at, stages } => Ok(Self { pid, started_at, stages }),
            other => Err(Error::new(Kind::Internal, format!("the shim answered a start with {other:?}"))),
        }
    }
}

/// A container that is to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What it is.
    pub plan: &'a LaunchPlan,
    /// The same as an OCI runtime specification, for launchers that have a [`Launcher::bundle`].
    pub spec: Option<serde_json::Value>,
    /// The IDs of its pod, if that has a user namespace.
    pub user: Option<UserMapping>,
    /// Its root filesystem.
    pub rootfs: RootFs,
    /// The mounts that the plan names by their index, from 1.
    pub volumes: Vec<OwnedFd>,
}

/// What pods of a launcher can have beyond what all have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// Volumes that are read-only with all that is mounted below them.
    pub recursive_read_only: bool,
    /// User namespaces of their own.
    pub user_namespaces: bool,
}

/// Starts the processes of containers.
#[async_trait]
pub trait Launcher: fmt::Debug + Send + Sync {
    /// One word; RuntimeClass handlers name it in the configuration.
    fn name(&self) -> &'static str;

    /// What its pods can have.
    fn features(&self) -> Features {
        Features::default()
    }

    /// Whether it can make pods. Asked before anything of a pod exists; answers at once.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// After a restart of the daemon: removes what belongs to no known container.
    async fn recover(&self, _known: &Known) -> Result<()> {
        Ok(())
    }

    /// The folder with the OCI runtime specification of a container, if it or the container's hooks use that.
    fn bundle(&self, _plan: &LaunchPlan) -> Option<PathBuf> {
        None
    }

    /// Starts a container in a pod. When it fails nothing of it is left.
    async fn launch(&self, shim: &Shim, launch: Launch<'_>) -> Result<Task>;

    /// Starts one more process in a running container, with the given standard input, output and error. If it is to
    /// have a terminal, none are given, and the terminal's master is returned. The shim can do so by itself, whoever
    /// made the container.
    async fn exec(&self, shim: &Shim, exec: ExecPlan, stdio: Vec<OwnedFd>) -> Result<Option<OwnedFd>> {
        shim.exec(exec, &stdio).await
    }

    /// Sends a signal to the container's first process, of which the shim is the parent.
    async fn signal(&self, shim: &Shim, container: &ContainerId, signal: i32) -> Result<()> {
        shim.signal(container, signal).await
    }

    /// Removes what the launcher made for a container. Idempotent.
    async fn destroy(&self, plan: &LaunchPlan) -> Result<()>;
}

//! SELinux labels: of a container's processes, of what is mounted for it, and of volumes that ask for it.
//!
//! The types come from the node's policy (the package container-selinux), the level is the pod's: the one that was asked
//! for, or two categories that no other pod has. A node without SELinux has no labels, and requests for some are without
//! effect, as with every other runtime: manifests are written for all nodes of a cluster.

mod context;
mod levels;
mod relabel;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tripod_shim_protocol::{LaunchPlan, MountSource};

use self::{
    context::{Context, Policy},
    levels::Levels,
};
use super::{blocking, invalid};
use crate::{
    ContainerConfig, Error, Kind, PodId, Result, SelinuxOptions,
    plugin::{ContainerContext, Isolator, IsolatorStatus, Known, PodContext, PodSetup},
};

/// There where the kernel has a policy loaded.
const ENFORCE: &str = "/sys/fs/selinux/enforce";

/// How long the files of a container's volumes may take.
const RELABEL_LIMIT: Duration = Duration::from_secs(200);

/// Writes labels.
#[derive(Debug)]
pub struct Selinux {
    node: Node,
    levels: Mutex<Levels>,
}

/// What the node has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// No SELinux.
    Without,
    /// SELinux, but no policy for containers.
    Unprepared,
    /// Both.
    With(Box<Policy>),
}

/// The labels of a container.
#[derive(Debug, PartialEq, Eq)]
struct Labels {
    process: Context,
    mount: Context,
}

impl Selinux {
    /// Looks at the running kernel and the node's policy. `state` is the daemon's state folder.
    pub fn new(state: &Path) -> Self {
        let node = match (Path::new(ENFORCE).exists(), Policy::of_node(Path::new("/"))) {
            (false, _) => Node::Without,
            (true, None) => Node::Unprepared,
            (true, Some(policy)) => Node::With(Box::new(policy)),
        };
        Self::on(node, state)
    }

    fn on(node: Node, state: &Path) -> Self {
        Self { node, levels: Mutex::new(Levels::new(state)) }
    }

    /// The node's policy, if there are labels. What was asked for and cannot be had is an error.
    fn policy(&self, asked: &SelinuxOptions) -> Result<Option<&Policy>> {
        match &self.node {
            Node::With(policy) => Ok(Some(policy)),
            Node::Unprepared if !asked.is_empty() => {
                let message = "selinux_options: this node's policy says nothing of containers (no lxc_contexts)";
                Err(Error::new(Kind::FailedPrecondition, format!("{message}; install the package container-selinux")))
            }
            Node::Without | Node::Unprepared => Ok(None),
        }
    }

    fn level(&self, pod: PodContext<'_>) -> Result<String> {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        levels.of(pod.id, &pod.config.selinux.level)
    }

    /// A container that asks for something asks instead of its pod, but for the level.
    fn labels(&self, pod: PodContext<'_>, asked: &SelinuxOptions) -> Result<Option<Labels>> {
        let asked = if asked.is_empty() { &pod.config.selinux } else { asked };
        let Some(policy) = self.policy(asked)? else { return Ok(None) };
        let level = match asked.level.as_str() {
            "" => self.level(pod)?,
            level => level.to_owned(),
        };
        let user = SelinuxOptions { user: asked.user.clone(), ..SelinuxOptions::default() };
        Ok(Some(Labels {
            process: policy.process.clone().with(asked).at(&level),
            mount: policy.file.clone().with(&user).at(&level),
        }))
    }
}

#[async_trait]
impl Isolator for Selinux {
    fn name(&self) -> &'static str {
        "selinux"
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        if self.node != Node::Without {
            self.levels.lock().unwrap_or_else(PoisonError::into_inner).recover(&known.pods);
        }
        Ok(())
    }

    async fn prepare_pod(&self, pod: PodContext<'_>, setup: &mut PodSetup) -> Result<()> {
        let labels = self.labels(pod, &pod.config.selinux)?;
        setup.plan.mount_label = labels.map(|labels| labels.mount.to_string());
        Ok(())
    }

    async fn cleanup_pod(&self, pod: &PodId) -> Result<()> {
        match self.node {
            Node::Without => Ok(()),
            _ => self.levels.lock().unwrap_or_else(PoisonError::into_inner).release(pod),
        }
    }

    fn mount_label(&self, pod: PodContext<'_>, config: &ContainerConfig) -> Result<Option<String>> {
        Ok(self.labels(pod, &config.security.selinux)?.map(|labels| labels.mount.to_string()))
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let security = &container.config.security;
        let Some(labels) = self.labels(container.pod, &security.selinux)? else { return Ok(()) };
        let mount = labels.mount.to_string();
        // What is privileged gets the label that the policy has for what such a daemon starts.
        plan.process.selinux = (!security.privileged).then(|| labels.process.to_string());
        plan.mount_label = Some(mount.clone());
        let volumes = container.config.mounts.iter().filter(|volume| volume.selinux_relabel && volume.image.is_none());
        let mut files: Vec<PathBuf> = volumes.map(|volume| volume.host_path.clone()).collect();
        files.extend(plan.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Bind { path, .. } if path.starts_with(container.pod.dir) => Some(path.clone()),
            _ => None,
        }));
        relabel_all(files, mount).await
    }

    async fn status(&self) -> IsolatorStatus {
        let text = match &self.node {
            Node::Without => "this kernel has none, or no policy: labels that are asked for are without effect".into(),
            Node::Unprepared => "the policy has no contexts for containers: nothing is labelled".into(),
            Node::With(policy) => format!("processes {}, files {}", policy.process, policy.file),
        };
        IsolatorStatus { not_ready: None, details: vec![("selinux".to_owned(), text)] }
    }
}

/// Says to stop when nobody waits any more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn relabel_all(files: Vec<PathBuf>, label: String) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let stop = Stop(Arc::default());
    let stopped = Arc::clone(&stop.0);
    blocking::look_within(RELABEL_LIMIT, move |progress| {
        for file in files {
            let step = format!("set SELinux label {label} on {}", file.display());
            progress.set(step.clone());
            relabel::relabel(&file, &label, &stopped).map_err(|error| match error {
                relabel::Refused::OfTheNode(_) => invalid(format!("{step}: {error}")),
                error => Error::with(Kind::Internal, step, error),
            })?;
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests;

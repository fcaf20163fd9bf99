//! Making, starting, changing and removing containers.

use std::{os::fd::AsFd, path::Path, path::PathBuf, sync::Arc};

use tripod_shim_protocol::{LaunchPlan, Request, Resources};

use super::{
    Container, Engine, ISOLATOR_LIMIT, PROVISION_LIMIT, Pod, fingerprint,
    index::Mounts,
    limited, now,
    pods::{all_or_first, user_namespace},
};
use crate::{
    ContainerConfig, ContainerId, ContainerPid, ContainerRecord, ContainerState, Error, EventKind, Exit, Kind, PodId,
    Result,
    isolator::merge_limits,
    operation::Operation,
    plugin::{ContainerContext, Launch, PodContext, RootFs},
    undo::Undo,
};

impl Engine {
    /// Makes a container in a pod. The same request again joins the first one, or returns its container.
    pub async fn create_container(self: &Arc<Self>, pod: &str, config: ContainerConfig) -> Result<ContainerId> {
        let pod = self.index.pod(pod)?;
        let (object, request) = (ContainerRecord::key(&pod.id, &config), fingerprint(&config));
        let engine = Arc::clone(self);
        let work =
            |operation: Arc<Operation>| async move { engine.do_create(&pod, Arc::new(config), &operation).await };
        self.creates.run("create container", object, request, work).await
    }

    async fn do_create(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        config: Arc<ContainerConfig>,
        operation: &Operation,
    ) -> Result<ContainerId> {
        let key = ContainerRecord::key(&pod.id, &config);
        if let Some(container) = self.index.container_named(&key) {
            let record = container.record();
            if record.state == ContainerState::Created && record.config == config {
                return Ok(record.id.clone());
            }
            return Err(Error::new(
                Kind::AlreadyExists,
                format!("container {} of pod {} has the name {:?}: remove it first", record.id, pod.id, config.name),
            ));
        }
        pod.shim()?;
        self.check_target(&pod.id, &config)?;
        let id = ContainerId::random();
        let mut undo = Undo::default();
        match self.build_container(&id, pod, &config, operation, &mut undo).await {
            Ok(()) => {
                self.publish(EventKind::Created, id.as_str(), pod);
                Ok(id)
            }
            Err(error) => {
                operation.stage("undo");
                self.leftovers.note_container(&id, &undo.unwind().await);
                Err(error.during(format_args!("create container {:?} in pod {}", config.name, pod.id)))
            }
        }
    }

    /// The PID namespace of another container can only be entered while that one runs, and only in the same pod.
    fn check_target(&self, pod: &PodId, config: &ContainerConfig) -> Result<()> {
        let ContainerPid::Target(target) = &config.security.pid else { return Ok(()) };
        let record = self.container(target).map_err(|error| error.during("target of the PID namespace"))?;
        if record.pod != *pod {
            let message = format!("the target container {target} is not in pod {pod}: name one of the same pod");
            return Err(Error::new(Kind::InvalidArgument, message));
        }
        record.running("enter the PID namespace of").map(drop)
    }

    async fn build_container(
        self: &Arc<Self>,
        id: &ContainerId,
        pod: &Arc<Pod>,
        config: &Arc<ContainerConfig>,
        operation: &Operation,
        undo: &mut Undo,
    ) -> Result<()> {
        operation.stage("provision");
        undo.push("root filesystem", {
            let (provisioner, id) = (Arc::clone(&self.plugins.provisioner), id.clone());
            async move { provisioner.destroy(&id).await }
        });
        let (pod_record, dir) = (pod.record(), self.pod_dir(&pod.id));
        let label = self.mount_label(PodContext { id: &pod.id, config: &pod_record.config, dir: &dir }, config)?;
        let mounts = self.provision(id, config, pod, label.as_deref()).await?;

        let root = open_root(&mounts.rootfs)?;
        let context = ContainerContext {
            id,
            config,
            pod: PodContext { id: &pod.id, config: &pod_record.config, dir: &dir },
            rootfs: root.as_fd(),
        };
        let mut plan = LaunchPlan { container: id.to_string(), ..LaunchPlan::default() };
        for isolator in &self.plugins.isolators {
            operation.stage(isolator.name());
            undo.push(isolator.name(), {
                let (isolator, id) = (Arc::clone(isolator), id.clone());
                async move { isolator.cleanup(&id, None).await }
            });
            limited(ISOLATOR_LIMIT, isolator.name(), isolator.prepare(context, &mut plan)).await?;
        }
        drop(root);

        operation.stage("record");
        let file = plan_file(&dir, id);
        undo.push("plan", remove_file(file.clone()));
        write_plan(&file, &plan)?;
        let record = ContainerRecord {
            id: id.clone(),
            pod: pod.id.clone(),
            config: Arc::clone(config),
            created_at: now(),
            state: ContainerState::Created,
            credentials: plan.process.credentials.clone(),
            resources: plan.resources.clone(),
            limitation: None,
        };
        undo.push("record", {
            let (engine, id) = (Arc::clone(self), id.clone());
            async move { engine.records.remove_container(&id).await }
        });
        self.records.put_container(&record).await?;
        self.index.insert_container(Arc::new(Container::new(record, plan, Some(mounts))), &pod.id)
    }

    /// The SELinux label of what is mounted for a container.
    fn mount_label(&self, pod: PodContext<'_>, config: &ContainerConfig) -> Result<Option<String>> {
        let labels = self.plugins.isolators.iter().map(|isolator| isolator.mount_label(pod, config));
        labels.collect::<Result<Vec<_>>>().map(|labels| labels.into_iter().flatten().next())
    }

    async fn provision(
        &self,
        id: &ContainerId,
        config: &ContainerConfig,
        pod: &Pod,
        label: Option<&str>,
    ) -> Result<Mounts> {
        let provisioner = &self.plugins.provisioner;
        if let Some(label) = label {
            provisioner.label(id, label);
        }
        let ids = match pod.record().config.namespaces.user {
            Some(_) => user_namespace(&pod.record().config, &*pod.shim()?).await?.map(|(ids, _)| ids),
            None => None,
        };
        let rootfs = provisioner.provision(&config.image.id, id, ids.as_ref());
        let rootfs = limited(PROVISION_LIMIT, "making the root filesystem", rootfs).await?;
        let mut volumes = Vec::new();
        for mount in &config.mounts {
            if let Some(image) = &mount.image {
                let volume = provisioner.volume(&image.id, &image.sub_path, id, ids.as_ref());
                volumes.push(limited(PROVISION_LIMIT, "making an image volume", volume).await?);
            }
        }
        Ok(Mounts { rootfs, volumes })
    }

    /// Starts a container that was created.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.index.container(id)?;
        let engine = Arc::clone(self);
        let object = container.id.to_string();
        let work = |operation: Arc<Operation>| async move { engine.do_start(&container, &operation).await };
        self.changes.run("start container", object, 0, work).await
    }

    async fn do_start(self: &Arc<Self>, container: &Arc<Container>, operation: &Operation) -> Result<()> {
        let _busy = container.busy.lock().await;
        let record = container.record();
        if record.state != ContainerState::Created {
            return Err(Error::new(
                Kind::FailedPrecondition,
                format!("cannot start container {}: it is {}, not created", container.id, record.state.name()),
            ));
        }
        let pod = self.index.pod(record.pod.as_str())?;
        let _transition = container.transition.lock().await;
        match self.launch(container, &record, &pod, operation).await {
            Ok(()) => {
                self.publish(EventKind::Started, container.id.as_str(), &pod);
                Ok(())
            }
            Err(error) => {
                // What the user did wrong is shown in the status, with the exit code that kubelet expects.
                let exit = Exit::start_error(now(), error.to_string());
                self.record_exit(container, &pod, exit).await?;
                Err(error.during(format_args!("start container {}", container.id)))
            }
        }
    }

    async fn launch(
        &self,
        container: &Arc<Container>,
        record: &ContainerRecord,
        pod: &Arc<Pod>,
        operation: &Operation,
    ) -> Result<()> {
        let launcher = self.launcher(&pod.record().config.runtime_handler)?;
        let shim = pod.shim()?;
        operation.stage("provision");
        let mounts = match container.take_mounts() {
            Some(mounts) => mounts,
            // The daemon was restarted since the container was created.
            None => {
                let label = container.plan().mount_label.clone();
                self.provision(&container.id, &record.config, pod, label.as_deref()).await?
            }
        };
        let plan = container.plan();
        if let Some(limit) = plan.resources.disk_limit {
            operation.stage("limit");
            let limiting = self.plugins.provisioner.limit(&container.id, limit);
            limited(PROVISION_LIMIT, "limiting the writable layer", limiting).await?;
        }
        operation.stage("launch");
        let spec = match launcher.bundle(&plan) {
            Some(bundle) => Some(self.spec_of(record, &plan, &bundle).await?),
            None => None,
        };
        let user = pod.record().config.namespaces.user;
        let launch = Launch { plan: &plan, spec, user, rootfs: mounts.rootfs, volumes: mounts.volumes };
        let task = launcher.launch(&shim, launch).await?;
        tracing::debug!(target: "tripod::operation", container = %container.id, stages = ?task.stages, "launched");
        operation.stage("record");
        let state = ContainerState::Running { pid: task.pid, started_at: task.started_at };
        let running = ContainerRecord { state, ..record.clone() };
        container.set_record(running.clone());
        self.records.put_container(&running).await
    }

    /// Changes the limits of a container, created or running: all of them, or none. `None` keeps what is set.
    pub async fn update_container(self: &Arc<Self>, id: &str, changes: Resources) -> Result<()> {
        let container = self.index.container(id)?;
        let _busy = container.busy.lock().await;
        let record = container.record();
        if matches!(record.state, ContainerState::Exited(_)) {
            let message = format!("cannot change the limits of container {}: it has exited", container.id);
            return Err(Error::new(Kind::FailedPrecondition, message));
        }
        let running = matches!(record.state, ContainerState::Running { .. });
        let (plan, new) = (container.plan(), merge_limits(&record.resources, &changes));
        let changed = LaunchPlan { resources: new.clone(), ..(*plan).clone() };
        let step = |error: Error| error.during(format_args!("change the limits of container {}", container.id));
        // The file first: a full disk is found out before anything has changed, and a file is put back for sure.
        let file = plan_file(&self.pod_dir(&record.pod), &container.id);
        write_plan(&file, &changed).map_err(step)?;
        for isolator in &self.plugins.isolators {
            let update = isolator.update(&plan, &changes, running);
            if let Err(error) = limited(ISOLATOR_LIMIT, isolator.name(), update).await {
                if let Err(error) = write_plan(&file, &plan) {
                    tracing::error!(container = %container.id, %error, "the plan tells limits that were refused");
                }
                return Err(step(error));
            }
        }
        container.set_plan(changed);
        // An end may have been recorded in the meantime; it must not be overwritten.
        let _transition = container.transition.lock().await;
        let record = ContainerRecord { resources: new, ..(*container.record()).clone() };
        container.set_record(record.clone());
        self.records.put_container(&record).await
    }

    /// Opens the log of a running container anew, after it was renamed.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.index.container(id)?;
        let record = container.record();
        record.running("reopen the log of")?;
        let shim = self.index.pod(record.pod.as_str())?.shim()?;
        shim.tell(Request::ReopenLog { container: container.id.to_string() }).await
    }

    /// Removes a container; kills it first. Unknown containers are fine.
    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = match self.index.container(id) {
            Ok(container) => container,
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let engine = Arc::clone(self);
        let object = container.id.to_string();
        let work = |operation: Arc<Operation>| async move { engine.do_remove(&container, &operation).await };
        self.changes.run("remove container", object, 0, work).await
    }

    async fn do_remove(self: &Arc<Self>, container: &Arc<Container>, operation: &Operation) -> Result<()> {
        operation.stage("stop");
        self.end_container(container).await?;
        let _busy = container.busy.lock().await;
        // Its end is told to all before its removal is.
        drop(container.transition.lock().await);
        let record = container.record();
        let pod = self.index.pod(record.pod.as_str())?;
        drop(container.take_mounts());
        let plan = container.plan();
        let mut errors = Vec::new();
        // A start may have been cut off by the end of a daemon.
        if let Ok(launcher) = self.launcher(&pod.record().config.runtime_handler)
            && launcher.bundle(&plan).is_some()
        {
            operation.stage("launcher");
            errors.extend(launcher.destroy(&plan).await.err());
        }
        for isolator in self.plugins.isolators.iter().rev() {
            operation.stage(isolator.name());
            let cleanup = limited(ISOLATOR_LIMIT, isolator.name(), isolator.cleanup(&container.id, Some(&plan)));
            errors.extend(cleanup.await.err().map(|error| error.during(isolator.name())));
        }
        operation.stage("root filesystem");
        let destroy = self.plugins.provisioner.destroy(&container.id);
        errors.extend(limited(PROVISION_LIMIT, "removing the root filesystem", destroy).await.err());
        errors.extend(remove_file(plan_file(&self.pod_dir(&pod.id), &container.id)).await.err());
        all_or_first(errors, format_args!("remove container {}", container.id))?;
        operation.stage("record");
        self.records.remove_container(&container.id).await?;
        self.index.remove_container(&container.id);
        self.publish(EventKind::Deleted, container.id.as_str(), &pod);
        Ok(())
    }

    /// Undoes everything of a container that could not be made. Idempotent.
    pub(super) async fn sweep_container(&self, id: &ContainerId) -> Result<()> {
        let mut errors = Vec::new();
        for isolator in self.plugins.isolators.iter().rev() {
            let cleanup = limited(ISOLATOR_LIMIT, isolator.name(), isolator.cleanup(id, None));
            errors.extend(cleanup.await.err().map(|error| error.during(isolator.name())));
        }
        errors.extend(
            limited(PROVISION_LIMIT, "removing the root filesystem", self.plugins.provisioner.destroy(id)).await.err(),
        );
        all_or_first(errors, format_args!("clean up after container {id}"))
    }
}

/// A descriptor for looking things up in a root filesystem.
fn open_root(rootfs: &RootFs) -> Result<std::os::fd::OwnedFd> {
    match rootfs {
        RootFs::Detached(mount) => mount.try_clone().map_err(|error| Error::io("open the root filesystem", error)),
        RootFs::Path(path) => std::fs::File::open(path)
            .map(Into::into)
            .map_err(|error| Error::io(format!("open the root filesystem {}", path.display()), error)),
    }
}

pub(super) fn plan_file(dir: &Path, id: &ContainerId) -> PathBuf {
    dir.join("plans").join(id)
}

fn write_plan(file: &Path, plan: &LaunchPlan) -> Result<()> {
    let bytes = serde_json::to_vec(plan).map_err(|error| Error::with(Kind::Internal, "encode a plan", error))?;
    let new = file.with_extension("new");
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, file))
        .map_err(|error| Error::io(format!("write {}", file.display()), error))
}

async fn remove_file(file: PathBuf) -> Result<()> {
    match tokio::fs::remove_file(&file).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", file.display()), error))
        }
        _ => Ok(()),
    }
}

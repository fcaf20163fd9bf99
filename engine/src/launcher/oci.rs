//! Launcher `oci`: a program with the command line of an OCI runtime makes the containers.
//!
//! The daemon writes a bundle and makes the cgroups with all limits, so that these hold whatever the runtime knows of
//! them. The shim has the runtime create and start the container, and is the parent of what comes of it: output, exit
//! codes, signals, and further processes are its business as with any other container. The daemon calls the runtime to
//! delete.

mod features;
mod made;
mod program;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tripod_shim_protocol::{LaunchPlan, MountSource, OciPlan, OciRuntime, Request, UserMapping, oci::bundle};

use self::program::Program;
use crate::{
    Error, Kind, Result,
    isolator::Cgroups,
    plugin::{Features, Known, Launch, Launcher, RootFs, Task},
    shim::Shim,
};

/// CAP_SYS_RESOURCE, without which the kernel lets nobody protect a process from the OOM killer.
const SYS_RESOURCE: u32 = 24;

/// How a runtime is called.
#[derive(Debug, Clone)]
pub struct OciOptions {
    /// The RuntimeClass handler.
    pub handler: String,
    /// The program.
    pub program: PathBuf,
    /// Options before the command.
    pub args: Vec<String>,
    /// Longest time of one call.
    pub limit: Duration,
    /// Folder for bundles and for what the runtime keeps; this handler's own.
    pub state: PathBuf,
}

/// A handler that is served by an OCI runtime.
#[derive(Debug)]
pub struct Oci {
    handler: String,
    program: Program,
    runtime: OciRuntime,
    bundles: PathBuf,
    features: Features,
    cgroups: Arc<Cgroups>,
}

impl Oci {
    /// A launcher over a runtime, which is asked what it can do. One that is not there, or does not answer, is said in
    /// the log, and its pods are refused until it is.
    pub async fn new(options: OciOptions, cgroups: Arc<Cgroups>) -> Self {
        let OciOptions { handler, program, args, limit, state } = options;
        let root = state.join("runtime");
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let runtime = OciRuntime { program: program.clone(), args: args.clone(), root: root.clone(), limit_ms };
        let program = Program::new(program, args, root, limit);
        let features = match features::ask(&program).await {
            Ok(features) => features,
            Err(error) => {
                tracing::warn!(handler, %error, "a runtime handler has no features: its runtime does not tell any");
                Features::default()
            }
        };
        Self { handler, program, runtime, bundles: state.join("bundles"), features, cgroups }
    }

    /// Writes the bundle of a container.
    fn write(&self, folder: &Path, plan: &LaunchPlan, spec: Value, user: Option<UserMapping>) -> Result<()> {
        let detached = plan.mounts.iter().filter_map(|mount| match mount.source {
            MountSource::Detached(index) => Some(folder.join(bundle::VOLUMES).join(index.to_string())),
            _ => None,
        });
        let mut spec = self.possible(plan, spec);
        if user.is_some() {
            made::refer(plan, folder, &mut spec);
        }
        let mut places = std::iter::once(folder.join(bundle::SHM)).chain(detached);
        super::bundle::write(folder, &spec, user)
            .and_then(|()| places.try_for_each(std::fs::create_dir_all))
            .map_err(|error| Error::io(format!("write the bundle {}", folder.display()), error))
    }

    /// The specification without what this host refuses, which would make a runtime fail where the plan is content with
    /// less, and without limits that are set already and that runtimes do not know how to set here.
    fn possible(&self, plan: &LaunchPlan, mut spec: Value) -> Value {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
        let may_lower = tripod_sys::caps::get().is_ok_and(|sets| sets.effective & 1 << SYS_RESOURCE != 0);
        if let Some(own) = own.filter(|own: &i64| !may_lower && spec["process"]["oomScoreAdj"].as_i64() < Some(*own)) {
            spec["process"]["oomScoreAdj"] = own.into();
        }
        if !plan.cgroups.unified
            && let Some(resources) = spec["linux"]["resources"].as_object_mut()
        {
            resources.remove("hugepageLimits");
        }
        spec
    }

    /// Has the runtime forget a container, and removes its bundle. The bundle goes last: it says that there is more.
    async fn clear(&self, container: &str) -> Result<()> {
        let folder = self.bundles.join(container);
        if !folder.exists() {
            return Ok(());
        }
        self.program.run(&["delete", "--force", container]).await?;
        tokio::fs::remove_dir_all(&folder)
            .await
            .map_err(|error| Error::io(format!("remove the bundle {}", folder.display()), error))
    }
}

#[async_trait]
impl Launcher for Oci {
    fn name(&self) -> &'static str {
        "oci"
    }

    fn features(&self) -> Features {
        self.features
    }

    fn ready(&self) -> Result<()> {
        self.program.check().map_err(|error| error.during(format_args!("runtime handler {:?}", self.handler)))
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        let found = std::fs::read_dir(&self.bundles).into_iter().flatten().flatten();
        let names = found.filter_map(|entry| entry.file_name().into_string().ok());
        for name in names.filter(|name| !known.containers.contains(name.as_str())) {
            tracing::warn!(container = name, handler = self.handler, "removing the bundle of an unknown container");
            self.clear(&name).await?;
        }
        Ok(())
    }

    fn bundle(&self, plan: &LaunchPlan) -> Option<PathBuf> {
        Some(self.bundles.join(&plan.container))
    }

    async fn launch(&self, shim: &Shim, launch: Launch<'_>) -> Result<Task> {
        let Launch { plan, spec, user, rootfs, volumes } = launch;
        let RootFs::Detached(rootfs) = rootfs else {
            return Err(Error::new(Kind::Internal, "launcher oci takes the root filesystem as a detached mount"));
        };
        let spec = spec.ok_or_else(|| Error::new(Kind::Internal, "launcher oci got no specification"))?;
        self.ready()?;
        let folder = self.bundles.join(&plan.container);
        let fds: Vec<_> = std::iter::once(rootfs).chain(volumes).collect();
        let work = async {
            self.cgroups.create(&plan.cgroups, &plan.resources)?;
            self.write(&folder, plan, spec, user)?;
            let oci = OciPlan { plan: plan.clone(), runtime: self.runtime.clone(), bundle: folder.clone() };
            shim.request(Request::LaunchOci(Box::new(oci)), &fds).await
        };
        match work.await {
            Ok((reply, _)) => reply.try_into(),
            Err(error) => {
                if let Err(left) = self.destroy(plan).await {
                    tracing::warn!(container = plan.container, error = %left, "a failed start has left something for later");
                }
                Err(error)
            }
        }
    }

    async fn destroy(&self, plan: &LaunchPlan) -> Result<()> {
        let cleared = self.clear(&plan.container).await;
        cleared.and(self.cgroups.remove(&plan.cgroups).await)
    }
}

//! Launcher `linux`: the shim starts the container itself; no other program takes part but hooks.

mod hooks;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tripod_shim_protocol::{LaunchPlan, Request};

use self::hooks::Bundles;
use crate::{
    Error, Kind, Result,
    isolator::Cgroups,
    plugin::{Features, Isolator, Known, Launch, Launcher, RootFs, Task},
    shim::Shim,
};

/// Makes the cgroups of the plan, then lets the shim carry out the rest.
#[derive(Debug)]
pub struct Linux {
    cgroups: Arc<Cgroups>,
    bundles: Bundles,
}

impl Linux {
    /// A launcher over the host's cgroups; what hooks are shown is kept below the daemon's `state` folder.
    pub fn new(cgroups: Arc<Cgroups>, state: &Path) -> Self {
        Self { cgroups, bundles: Bundles::new(state) }
    }
}

#[async_trait]
impl Launcher for Linux {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn features(&self) -> Features {
        Features { recursive_read_only: true, user_namespaces: true }
    }

    async fn recover(&self, known: &Known) -> Result<()> {
        self.bundles.recover(known).await
    }

    fn bundle(&self, plan: &LaunchPlan) -> Option<PathBuf> {
        (!plan.hooks.is_empty()).then(|| self.bundles.of(&plan.container))
    }

    async fn launch(&self, shim: &Shim, launch: Launch<'_>) -> Result<Task> {
        let Launch { plan, spec, user, rootfs, volumes } = launch;
        let RootFs::Detached(rootfs) = rootfs else {
            return Err(Error::new(Kind::Internal, "launcher linux takes the root filesystem as a detached mount"));
        };
        shim.knows(plan)?;
        self.cgroups.create(&plan.cgroups, &plan.resources)?;
        let mut fds: Vec<_> = std::iter::once(rootfs).chain(volumes).collect();
        let work = async {
            let request = match spec {
                None => Request::Launch(Box::new(plan.clone())),
                Some(spec) => Request::LaunchHooked(Box::new(self.bundles.make(plan, &spec, user, &mut fds)?)),
            };
            shim.request(request, &fds).await
        };
        match work.await {
            Ok((reply, _)) => reply.try_into(),
            Err(error) => {
                let error = match self.cgroups.limitation(plan).await {
                    Some(limitation) => Error::new(error.kind(), format!("{error}: {}", limitation.message)),
                    None => error,
                };
                if let Err(left) = self.destroy(plan).await {
                    tracing::warn!(container = plan.container, error = %left, "cgroups of a failed start are left for later");
                }
                Err(error)
            }
        }
    }

    async fn destroy(&self, plan: &LaunchPlan) -> Result<()> {
        let removed = self.cgroups.remove(&plan.cgroups).await;
        if plan.hooks.is_empty() { removed } else { removed.and(self.bundles.remove(&plan.container).await) }
    }
}

//! Puts the daemon together: the one place that knows every plugin.
//!
//! Isolators prepare in the order below and clean up in reverse; the engine's own order and its reasons are told in
//! `tripod_engine::isolator`. The network stands where addresses are made: after the namespaces that it fills, before
//! the files that name them. A new plugin is a new crate or file, and one line here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tripod_engine::{
    Engine, EngineOptions, Error, Kind, Plugins, Result, isolator,
    launcher::{Linux, Oci, OciOptions},
    plugin::{Features, Isolator, Launcher},
    shim::ShimProgram,
};
use tripod_image_service::{Chosen, ImageService};
use tripod_network::Network;

use crate::{
    config::{Config, RuntimeKind},
    images::Images,
};

/// Name of the shim's program.
const SHIM: &str = "tripod-shim";

/// All parts of a daemon, at work.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) images: Images,
    /// RuntimeClass handlers, the default one with the empty name, and what their pods can have.
    pub(crate) handlers: BTreeMap<String, Features>,
    /// What makes root filesystems, and why it is not another.
    pub(crate) provisioner: String,
    /// Why no pod of this node can have a user namespace, if so.
    pub(crate) no_user_namespaces: Option<String>,
    /// Who makes cgroups.
    pub(crate) driver: isolator::CgroupDriver,
}

/// Opens everything that the settings name, and takes up what an earlier daemon left.
pub(crate) async fn compose(config: &Config) -> Result<Parts> {
    tripod_sys::kernel::check().map_err(|error| Error::with(Kind::FailedPrecondition, "look at the kernel", error))?;
    let shim = ShimProgram::load(&shim_program(&config.shim.program)?)?;
    let service = ImageService::open(config.image_service()).await?;
    let limits = config.handler_limits().map_err(|wrong| Error::with(Kind::InvalidArgument, "settings", wrong))?;
    let builtin = isolator::builtin(&config.cgroup, &config.state, &limits)
        .map_err(|error| Error::with(Kind::FailedPrecondition, "look at the host's cgroups", error))?;
    let network = Network::new(config.network.clone(), &config.root)?;

    let mut isolators: Vec<Arc<dyn Isolator>> = builtin.before_network;
    isolators.push(network);
    if !config.timezone.is_empty() {
        isolators.push(Arc::new(isolator::Timezone::new(&config.timezone)?));
    }
    isolators.extend(builtin.after_network);

    let Chosen { provisioner, fallback, no_user_namespaces } = service.provisioner().await?;
    let provisioner_name = provisioner_name(provisioner.name(), fallback.as_deref());
    tracing::info!(accounts = service.accounts(), "use of writable layers");
    let disk = isolator::Disk::new(Arc::clone(&provisioner), &limits, config.limits.disk_interval());
    isolators.extend(disk.map(|disk| Arc::new(disk) as Arc<dyn Isolator>));

    let launchers = launchers(config, &builtin.cgroups).await;
    if !config.hooks_dir.as_os_str().is_empty() {
        isolators.push(Arc::new(isolator::Hooks::new(config.hooks_dir.clone())));
    }

    if let Some(why) = &no_user_namespaces {
        tracing::info!(why, "pods cannot have user namespaces on this node");
    }
    let features = |(name, launcher): (&String, &Arc<dyn Launcher>)| {
        let features = launcher.features();
        let user_namespaces = features.user_namespaces && no_user_namespaces.is_none();
        (name.clone(), Features { user_namespaces, ..features })
    };
    let handlers = launchers.iter().map(features).collect();
    let plugins = Plugins { isolators, provisioner, launchers };
    let options = EngineOptions { root: config.root.clone(), state: config.state.clone(), shim };
    let engine = Engine::open(options, plugins).await?;
    let images = Images::new(service).await?;
    Ok(Parts {
        engine,
        images,
        handlers,
        provisioner: provisioner_name,
        no_user_namespaces,
        driver: config.cgroup.driver,
    })
}

/// What the status says of the provisioner. The log says it too.
fn provisioner_name(name: &str, fallback: Option<&str>) -> String {
    let Some(why) = fallback else {
        tracing::info!(provisioner = name, "root filesystems are made by it");
        return name.to_owned();
    };
    tracing::warn!(provisioner = name, why, "root filesystems take a copy of their image each");
    format!("{name} ({why})")
}

/// One for each handler; the default one has the empty name.
async fn launchers(config: &Config, cgroups: &Arc<isolator::Cgroups>) -> BTreeMap<String, Arc<dyn Launcher>> {
    let linux: Arc<dyn Launcher> = Arc::new(Linux::new(Arc::clone(cgroups), &config.state));
    let mut launchers = BTreeMap::new();
    for (handler, runtime) in &config.runtimes {
        let launcher = match runtime.kind {
            RuntimeKind::Linux => Arc::clone(&linux),
            RuntimeKind::Oci => {
                let options = OciOptions {
                    handler: handler.clone(),
                    program: runtime.path.clone(),
                    args: runtime.args.clone(),
                    limit: Duration::from_secs(runtime.timeout_seconds),
                    state: config.state.join("oci").join(handler),
                };
                Arc::new(Oci::new(options, Arc::clone(cgroups)).await)
            }
        };
        launchers.insert(handler.clone(), launcher);
    }
    let default = launchers.get(&config.default_runtime).map_or(linux, Arc::clone);
    launchers.insert(String::new(), default);
    launchers
}

/// The shim's program: the configured one, or the one beside this program, or the first along PATH.
fn shim_program(configured: &Path) -> Result<PathBuf> {
    if !configured.as_os_str().is_empty() {
        return Ok(configured.to_owned());
    }
    let own = std::env::current_exe().map_err(|error| Error::io("find the program that runs", error))?;
    let beside = own.parent().map(|folder| folder.join(SHIM));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let along = std::env::split_paths(&path).map(|folder| folder.join(SHIM));
    beside.into_iter().chain(along).find(|program| program.is_file()).ok_or_else(|| {
        let message =
            format!("{SHIM} is neither beside {} nor along PATH: install it, or set shim.program", own.display());
        Error::new(Kind::FailedPrecondition, message)
    })
}

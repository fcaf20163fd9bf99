//! The container's first process: program, environment, working directory, standard streams, limits.
//!
//! From the image's configuration and the request, merged as Kubernetes documents it.

mod environment;

use std::sync::Once;

use async_trait::async_trait;
use rustix::process::{Resource as Limit, getrlimit};
use tripod_shim_protocol::{LaunchPlan, LogTarget, Resource, Rlimit};

use super::{capabilities::Held, invalid, namespaces, signal};
use crate::{
    ByHandler, ContainerConfig, Limits, Result,
    plugin::{ContainerContext, Isolator, IsolatorStatus},
};

pub(crate) use environment::set_default;

/// CAP_SYS_RESOURCE, which raising limits and lowering the OOM score take.
const SYS_RESOURCE: u8 = 24;

/// Writes the process part of plans.
#[derive(Debug)]
pub struct Process {
    /// The daemon may go beyond its own limits.
    unlimited: bool,
    /// The daemon's own OOM score.
    score: i32,
    /// Limits of a container that asks for none of its own.
    rlimits: ByHandler<Vec<Rlimit>>,
    warned: Once,
}

impl Process {
    /// Looks at what the daemon itself may do, and what it was given: to be called before it raises limits of its own.
    pub fn new(limits: &ByHandler<Limits>) -> Self {
        let score = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
        let mut process = Self {
            unlimited: Held::read().has(SYS_RESOURCE),
            score: score.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
            rlimits: ByHandler::default(),
            warned: Once::new(),
        };
        // Open files are limited as the daemon was when it started, however many it allows itself later.
        let files = own(Resource::Nofile);
        process.rlimits = limits.map(|limits| {
            let mut rlimits: Vec<_> = limits.rlimits.iter().map(|wanted| process.clamp(wanted)).collect();
            add(&mut rlimits, &files);
            rlimits
        });
        process
    }

    /// Without CAP_SYS_RESOURCE the kernel refuses a score below one's own; the nearest one is better than no
    /// container.
    fn oom_score(&self, wanted: i32) -> Result<i32> {
        if !(-1000..=1000).contains(&wanted) {
            return Err(invalid(format!("oom_score_adj {wanted} is not between -1000 and 1000")));
        }
        if self.unlimited || wanted >= self.score {
            return Ok(wanted);
        }
        self.warn();
        Ok(self.score)
    }

    fn rlimit(&self, wanted: &Rlimit) -> Result<Rlimit> {
        if wanted.soft > wanted.hard {
            let (resource, soft, hard) = (wanted.resource, wanted.soft, wanted.hard);
            return Err(invalid(format!("the soft limit {soft} of {resource:?} is above its hard limit {hard}")));
        }
        Ok(self.clamp(wanted))
    }

    /// The nearest limit that the kernel lets the daemon set.
    fn clamp(&self, wanted: &Rlimit) -> Rlimit {
        let own = own(wanted.resource).hard;
        if self.unlimited || wanted.hard <= own {
            return wanted.clone();
        }
        self.warn();
        Rlimit { resource: wanted.resource, soft: wanted.soft.min(own), hard: own }
    }

    fn warn(&self) {
        self.warned.call_once(|| {
            tracing::warn!(
                own_oom_score_adj = self.score,
                "tripod runs without CAP_SYS_RESOURCE: OOM scores below its own and resource limits above its own are \
                 set to its own"
            );
        });
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new(&ByHandler::default())
    }
}

#[async_trait]
impl Isolator for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let config = container.config;
        let process = &mut plan.process;
        process.argv = argv(config)?;
        process.env = environment::merge(config, &hostname(&container)?)?;
        process.cwd = working_dir(config)?.into();
        process.terminal = config.terminal;
        process.no_new_privs = config.security.no_new_privs;
        process.oom_score_adj = config.oom_score_adj.map(|wanted| self.oom_score(wanted)).transpose()?;
        process.rlimits = config.rlimits.iter().map(|wanted| self.rlimit(wanted)).collect::<Result<_>>()?;
        let defaults = self.rlimits.of(&container.pod.config.runtime_handler);
        defaults.iter().for_each(|default| add(&mut process.rlimits, default));
        plan.rootfs.read_only = config.security.read_only_rootfs;
        plan.stdin = config.stdin;
        plan.stdin_once = config.stdin && config.stdin_once;
        plan.stop_signal = stop_signal(config)?;
        plan.log = log(config)?;
        Ok(())
    }

    async fn status(&self) -> IsolatorStatus {
        let details = if self.unlimited {
            Vec::new()
        } else {
            let what =
                format!("no CAP_SYS_RESOURCE: OOM scores not below {}, limits not above tripod's own", self.score);
            vec![("process".to_owned(), what)]
        };
        IsolatorStatus { not_ready: None, details }
    }
}

/// Kubernetes' rules: `command` replaces the image's entrypoint *and* its arguments, `args` only the arguments.
fn argv(config: &ContainerConfig) -> Result<Vec<String>> {
    let image = &config.image.config;
    let (program, arguments) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    let argv: Vec<String> = program.iter().chain(arguments).cloned().collect();
    if argv.first().is_none_or(String::is_empty) {
        let image = &config.image.requested;
        return Err(invalid(format!(
            "nothing to run: neither the container nor its image {image} names a command; set the container's command"
        )));
    }
    if let Some(bad) = argv.iter().find(|argument| argument.contains('\0')) {
        return Err(invalid(format!("the argument {bad:?} contains a NUL byte")));
    }
    Ok(argv)
}

fn hostname(container: &ContainerContext<'_>) -> Result<String> {
    if container.pod.config.namespaces.host_network {
        return Ok(namespaces::host_hostname());
    }
    namespaces::hostname(container.pod.config)
}

fn working_dir(config: &ContainerConfig) -> Result<&str> {
    let dir = [config.working_dir.as_str(), config.image.config.working_dir.as_str()];
    let dir = dir.into_iter().find(|dir| !dir.is_empty()).unwrap_or("/");
    if !dir.starts_with('/') || dir.contains('\0') {
        return Err(invalid(format!("the working directory {dir:?} is not an absolute path")));
    }
    Ok(dir)
}

fn stop_signal(config: &ContainerConfig) -> Result<i32> {
    let image = &config.image.config.stop_signal;
    match config.stop_signal {
        Some(number) if (1..=64).contains(&number) => Ok(number),
        Some(number) => Err(invalid(format!("{number} is not a signal"))),
        None if image.is_empty() => Ok(signal::TERM),
        None => signal::parse(image).ok_or_else(|| {
            let name = &config.image.requested;
            invalid(format!("the stop signal {image:?} of the image {name} is not a signal; set the container's own"))
        }),
    }
}

fn log(config: &ContainerConfig) -> Result<Option<LogTarget>> {
    match &config.log_path {
        Some(path) if !path.is_absolute() => {
            Err(invalid(format!("the log path {} is not absolute; does the pod have a log directory?", path.display())))
        }
        path => Ok(path.clone().map(|path| LogTarget { path })),
    }
}

/// Adds a limit, unless there is one for the same resource.
fn add(rlimits: &mut Vec<Rlimit>, default: &Rlimit) {
    if !rlimits.iter().any(|limit| limit.resource == default.resource) {
        rlimits.push(default.clone());
    }
}

/// What the daemon itself may use.
fn own(resource: Resource) -> Rlimit {
    let limit = getrlimit(limit(resource));
    let bound = |value: Option<u64>| value.unwrap_or(u64::MAX);
    Rlimit { resource, soft: bound(limit.current), hard: bound(limit.maximum) }
}

fn limit(resource: Resource) -> Limit {
    match resource {
        Resource::As => Limit::As,
        Resource::Core => Limit::Core,
        Resource::Cpu => Limit::Cpu,
        Resource::Data => Limit::Data,
        Resource::Fsize => Limit::Fsize,
        Resource::Locks => Limit::Locks,
        Resource::Memlock => Limit::Memlock,
        Resource::Msgqueue => Limit::Msgqueue,
        Resource::Nice => Limit::Nice,
        Resource::Nofile => Limit::Nofile,
        Resource::Nproc => Limit::Nproc,
        Resource::Rss => Limit::Rss,
        Resource::Rtprio => Limit::Rtprio,
        Resource::Rttime => Limit::Rttime,
        Resource::Sigpending => Limit::Sigpending,
        Resource::Stack => Limit::Stack,
    }
}

#[cfg(test)]
mod tests;

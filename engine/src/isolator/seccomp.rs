//! Filters for the system calls of containers.
//!
//! A profile (the default one, or a file of the node's) becomes rules, and rules become a program for the kernel, which
//! travels in the plan and is loaded by the shim. Programs are kept: a node has many containers and few profiles.

mod arch;
mod assemble;
mod cache;
mod compile;
mod default;
mod profile;
mod rules;
mod spec;

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tripod_shim_protocol::{LaunchPlan, SeccompFilter, SeccompListener};

use self::{
    arch::Arch,
    assemble::Instruction,
    cache::{Cache, Compiled, Key},
    profile::{MAX_FILE, Situation},
    rules::{Action, Rules},
};
use super::{blocking, invalid};
use crate::{
    ContainerConfig, Error, Kind, Result, SeccompProfile,
    plugin::{ContainerContext, Isolator, IsolatorStatus},
};

/// The actions that the kernel knows; absent where it has no filters.
const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";

/// Writes filters.
#[derive(Debug)]
pub struct Seccomp {
    kernel: Kernel,
    cache: Arc<Cache>,
}

/// What the running kernel can do.
#[derive(Debug, Clone, Default)]
struct Kernel {
    actions: BTreeSet<String>,
    version: (u32, u32),
}

impl Seccomp {
    /// Looks at the running kernel.
    pub fn new() -> Self {
        let actions = std::fs::read_to_string(ACTIONS).unwrap_or_default();
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = Kernel {
            actions: actions.split_whitespace().map(str::to_owned).collect(),
            version: profile::kernel_version(&release).unwrap_or_default(),
        };
        Self { kernel, cache: Arc::default() }
    }

    async fn compiled(&self, wanted: &SeccompProfile, capabilities: u64) -> Result<Option<Compiled>> {
        if *wanted == SeccompProfile::Unconfined {
            return Ok(None);
        }
        if self.kernel.actions.is_empty() {
            let message = format!("seccomp profile {wanted}: this kernel has no seccomp filters (no {ACTIONS})");
            return Err(Error::new(Kind::FailedPrecondition, format!("{message}; ask for Unconfined")));
        }
        let situation = Situation { capabilities, native: Arch::NATIVE, kernel: self.kernel.version };
        let compiled = match wanted {
            SeccompProfile::Unconfined => return Ok(None),
            SeccompProfile::RuntimeDefault => {
                let capabilities = capabilities & default::relevant();
                let key = Key::new(capabilities, b"");
                self.cache.get(key, || compile(&default::rules(capabilities, Arch::NATIVE), wanted))?
            }
            SeccompProfile::Localhost(path) => {
                let text = read(path).await?;
                let refused = |error| Error::with(Kind::InvalidArgument, format!("seccomp profile {wanted}"), error);
                self.cache.get(Key::new(capabilities, &text), || {
                    compile(&profile::parse(&text, situation).map_err(refused)?, wanted)
                })?
            }
        };
        let missing = compiled.actions.iter().find(|action| !self.kernel.actions.contains(action.kernel_name()));
        match missing {
            None => Ok(Some(compiled)),
            Some(action) => {
                let name = action.kernel_name();
                let message = format!("seccomp profile {wanted}: this kernel has no action {name:?} (see {ACTIONS})");
                Err(Error::new(Kind::FailedPrecondition, message))
            }
        }
    }
}

impl Seccomp {
    /// The rules of a profile other than Unconfined, for those who want to read them.
    async fn rules(&self, wanted: &SeccompProfile, capabilities: u64) -> Result<Rules> {
        let situation = Situation { capabilities, native: Arch::NATIVE, kernel: self.kernel.version };
        match wanted {
            SeccompProfile::Localhost(path) => profile::parse(&read(path).await?, situation)
                .map_err(|error| Error::with(Kind::InvalidArgument, format!("seccomp profile {wanted}"), error)),
            _ => Ok(default::rules(capabilities & default::relevant(), Arch::NATIVE)),
        }
    }
}

impl Default for Seccomp {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Isolator for Seccomp {
    fn name(&self) -> &'static str {
        "seccomp"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let security = &container.config.security;
        // Who may do everything would be surprised by what it cannot: kubelet and all runtimes see it so.
        if security.privileged {
            return Ok(());
        }
        let Some(compiled) = self.compiled(&security.seccomp, bounding(plan)).await? else { return Ok(()) };
        plan.process.seccomp = Some(SeccompFilter {
            program: compiled.program,
            log: compiled.flags.log,
            spec_allow: compiled.flags.spec_allow,
            wait_killable: compiled.flags.wait_killable,
            listener: compiled.listener.map(|listener| {
                Box::new(SeccompListener {
                    path: listener.path,
                    metadata: listener.metadata,
                    container: container.id.to_string(),
                    annotations: container.config.annotations.clone(),
                })
            }),
        });
        Ok(())
    }

    async fn spec(&self, config: &ContainerConfig, plan: &LaunchPlan, spec: &mut serde_json::Value) -> Result<()> {
        let wanted = &config.security.seccomp;
        if plan.process.seccomp.is_some() {
            spec["linux"]["seccomp"] = spec::of(&self.rules(wanted, bounding(plan)).await?);
        }
        Ok(())
    }

    async fn status(&self) -> IsolatorStatus {
        let actions: Vec<_> = self.kernel.actions.iter().map(String::as_str).collect();
        let text = match actions.is_empty() {
            true => "this kernel has none: profiles other than Unconfined are refused".to_owned(),
            false => format!("RuntimeDefault and Localhost profiles; actions of this kernel: {}", actions.join(" ")),
        };
        IsolatorStatus { not_ready: None, details: vec![("seccomp".to_owned(), text)] }
    }
}

/// The capabilities on which profiles depend, a bit each.
fn bounding(plan: &LaunchPlan) -> u64 {
    plan.process.capabilities.bounding.iter().fold(0, |bits, number| bits | 1u64 << (number & 63))
}

/// A profile's text. The path is a user's: it may be anything, on anything.
async fn read(path: &Path) -> Result<Vec<u8>> {
    let path = path.to_owned();
    blocking::look(move |progress| {
        progress.set(format!("seccomp profile {}", path.display()));
        read_file(&path)
    })
    .await
}

fn read_file(path: &PathBuf) -> Result<Vec<u8>> {
    let step = |problem: &str| format!("seccomp profile {}: {problem}", path.display());
    let open = || {
        // A FIFO would be waited for.
        let metadata = std::fs::metadata(path)?;
        Ok((metadata.is_file(), metadata.len()))
    };
    let (is_file, size) = open().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => invalid(step("no such file on this node")),
        _ => Error::with(Kind::InvalidArgument, step("cannot be read"), error),
    })?;
    if !is_file {
        return Err(invalid(step("not a regular file")));
    }
    if size > MAX_FILE {
        return Err(invalid(step(&format!("{size} bytes; at most {MAX_FILE} are read"))));
    }
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text));
    read.map_err(|error| Error::with(Kind::InvalidArgument, step("cannot be read"), error))?;
    Ok(text)
}

/// Makes a program of rules, if it can work at all.
fn compile(rules: &Rules, profile: &SeccompProfile) -> Result<Compiled> {
    let refused = |problem: String| invalid(format!("seccomp profile {profile}: {problem}"));
    if notifies_of_sendmsg(rules) {
        let problem = "syscalls: SCMP_ACT_NOTIFY cannot be the action of sendmsg, with which the listener is told";
        return Err(refused(problem.to_owned()));
    }
    let program = compile::compile(rules, Arch::NATIVE).map_err(|error| refused(error.to_string()))?;
    let mut actions: Vec<_> = rules.rules.iter().map(|rule| rule.action).chain([rules.default]).collect();
    actions.sort_unstable();
    actions.dedup();
    Ok(Compiled {
        program: bytes(&program),
        actions: actions.into(),
        flags: rules.flags,
        listener: rules.listener.clone(),
    })
}

/// Whether the call that hands the descriptor to the listener would wait for the listener.
fn notifies_of_sendmsg(rules: &Rules) -> bool {
    let mut about = rules.rules.iter().filter(|rule| rule.names.iter().any(|name| name == "sendmsg"));
    match rules.default {
        Action::Notify => !about.any(|rule| rule.conditions.is_empty() && rule.action != Action::Notify),
        _ => about.any(|rule| rule.action == Action::Notify),
    }
}

/// `struct sock_filter`s as the kernel reads them.
fn bytes(program: &[Instruction]) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    bytes.into()
}

#[cfg(test)]
mod tests;

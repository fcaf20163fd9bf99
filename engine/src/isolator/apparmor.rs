//! AppArmor profiles of containers: tripod's own, which is loaded when it is first needed, and those of the node.
//!
//! Which profiles the kernel has is read from securityfs at each container, as anybody may load and remove some. The
//! plan has the profile's name; the shim tells it to the kernel.

mod parser;
mod policy;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Once,
};

use async_trait::async_trait;
use tripod_shim_protocol::LaunchPlan;

use self::{parser::Parser, policy::Policy};
use super::invalid;
use crate::{
    AppArmorProfile, Error, Kind, Result,
    plugin::{ContainerContext, Isolator, IsolatorStatus},
};

/// Whether the kernel confines by AppArmor: `Y`.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// The profiles that are loaded, a line each: `NAME (MODE)`.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// The profile of whoever asks; the second is that of older kernels.
const CURRENT: [&str; 2] = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];

/// Files of `apparmor_parser`.
const BASE: &str = "/etc/apparmor.d";

/// Chooses profiles.
#[derive(Debug)]
pub struct AppArmor {
    /// `None` where the kernel has none.
    host: Option<Host>,
    loading: tokio::sync::Mutex<()>,
    warned: Once,
}

/// What there is on the node.
#[derive(Debug)]
struct Host {
    profiles: PathBuf,
    parser: Option<Parser>,
    policy: Policy,
}

impl AppArmor {
    /// Looks at the running kernel.
    pub fn new() -> Self {
        let enabled = std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y");
        Self::on(enabled.then(|| Host {
            profiles: PROFILES.into(),
            parser: Parser::find(),
            policy: Policy::new(Path::new(BASE), &own_profile()),
        }))
    }

    fn on(host: Option<Host>) -> Self {
        Self { host, loading: tokio::sync::Mutex::default(), warned: Once::new() }
    }

    /// The name of the profile for a container; `None` is no confinement.
    async fn profile(&self, wanted: &AppArmorProfile, privileged: bool) -> Result<Option<String>> {
        match (wanted, &self.host) {
            (AppArmorProfile::Localhost(name), None) => {
                let message = format!("AppArmor profile {name:?}: this kernel has no AppArmor, or it is switched off");
                Err(Error::new(Kind::FailedPrecondition, format!("{message}; ask for Unconfined or nothing")))
            }
            (AppArmorProfile::Localhost(name), Some(host)) => host.named(name).map(Some),
            // Where there is no AppArmor there is no default to fall short of.
            (AppArmorProfile::Unconfined, _) | (_, None) => Ok(None),
            (AppArmorProfile::Unset | AppArmorProfile::RuntimeDefault, _) if privileged => Ok(None),
            (AppArmorProfile::Unset, Some(host)) => {
                if let Some(lack) = host.lack() {
                    self.warned.call_once(|| {
                        tracing::warn!(lack, "containers that ask for no AppArmor profile run without one");
                    });
                    return Ok(None);
                }
                self.default_profile(host).await.map(Some)
            }
            (AppArmorProfile::RuntimeDefault, Some(host)) => self.default_profile(host).await.map(Some),
        }
    }

    /// Loads the default profile unless it is there.
    async fn default_profile(&self, host: &Host) -> Result<String> {
        let Policy { name, .. } = &host.policy;
        let step = || format!("AppArmor profile {name} (RuntimeDefault)");
        let loaded = || {
            host.loaded(name).map_err(|error| Error::with(Kind::FailedPrecondition, host.unreadable(&step()), error))
        };
        if loaded()? {
            return Ok(name.clone());
        }
        // Others wait, and find it loaded.
        let _loading = self.loading.lock().await;
        if loaded()? {
            return Ok(name.clone());
        }
        let Some(parser) = &host.parser else {
            let message = format!("{}: apparmor_parser, which loads it, is not installed", step());
            return Err(Error::new(Kind::FailedPrecondition, format!("{message}: install the package apparmor")));
        };
        let load = parser.load(&host.policy).await;
        load.map_err(|error| Error::with(Kind::Internal, format!("{}: load it", step()), error))?;
        if !loaded()? {
            let message = format!("{}: apparmor_parser said nothing, but the kernel does not have it", step());
            return Err(Error::new(Kind::Internal, message));
        }
        tracing::info!(profile = name, "the default AppArmor profile is loaded");
        Ok(name.clone())
    }
}

impl Default for AppArmor {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Whether the kernel has a profile.
    fn loaded(&self, name: &str) -> io::Result<bool> {
        Ok(names(&std::fs::read_to_string(&self.profiles)?).any(|loaded| loaded == name))
    }

    /// A profile of the node's.
    fn named(&self, name: &str) -> Result<String> {
        let step = format!("AppArmor profile {name:?}");
        match self.loaded(name) {
            Ok(true) => Ok(name.to_owned()),
            Ok(false) => {
                Err(invalid(format!("{step}: not loaded on this node: load it with `apparmor_parser --replace FILE`")))
            }
            Err(error) => Err(Error::with(Kind::FailedPrecondition, self.unreadable(&step), error)),
        }
    }

    fn unreadable(&self, step: &str) -> String {
        let path = self.profiles.display();
        format!("{step}: {path}, the list of profiles, cannot be read: is securityfs mounted on /sys/kernel/security?")
    }

    /// What is missing on the node for the default profile.
    fn lack(&self) -> Option<&'static str> {
        if !self.profiles.exists() {
            return Some("securityfs is not mounted on /sys/kernel/security");
        }
        self.parser.is_none().then_some("apparmor_parser is not installed (package apparmor)")
    }
}

#[async_trait]
impl Isolator for AppArmor {
    fn name(&self) -> &'static str {
        "apparmor"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let security = &container.config.security;
        plan.process.apparmor = self.profile(&security.apparmor, security.privileged).await?;
        Ok(())
    }

    async fn status(&self) -> IsolatorStatus {
        let text = match &self.host {
            None => "this kernel has none: Localhost profiles are refused".to_owned(),
            Some(host) => match host.lack() {
                Some(lack) => format!("{lack}: RuntimeDefault is refused, and nothing asked for is no profile"),
                None => format!("RuntimeDefault is {}; Localhost profiles", host.policy.name),
            },
        };
        IsolatorStatus { not_ready: None, details: vec![("apparmor".to_owned(), text)] }
    }
}

/// The names in the kernel's list. They may contain spaces and parentheses; a mode does not.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| Some(line.strip_suffix(')')?.rsplit_once(" (")?.0))
}

/// The daemon's own profile, without its mode.
fn own_profile() -> String {
    let text = CURRENT.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let text = text.trim_matches(['\0', '\n', ' ']);
    let name = names(text).next().unwrap_or(text);
    // It becomes a quoted word of the policy.
    let plain = !name.is_empty() && !name.contains(['"', '\\', '\n']);
    if plain { name.to_owned() } else { "unconfined".to_owned() }
}

#[cfg(test)]
mod tests;

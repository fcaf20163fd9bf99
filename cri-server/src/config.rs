//! Settings of the daemon: a TOML file in which everything may be left out, and flags that win over it.

mod dump;
mod limits;
mod runtimes;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tripod_engine::isolator::CgroupConfig;
use tripod_image_service::{Config as ImageConfig, Proxies};
use tripod_network::NetworkConfig;

use crate::telemetry;

pub use limits::{Bound, LimitsConfig, SysctlValue, Ulimit};
pub use runtimes::{RuntimeConfig, RuntimeKind};

/// Where the file is looked for when no flag names one. Only this one may be absent.
pub const DEFAULT_PATH: &str = "/etc/tripod/config.toml";

/// All settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of what survives a reboot: images, layers, records.
    pub root: PathBuf,
    /// Folder of what does not: sockets and files of running pods.
    pub state: PathBuf,
    /// The CRI socket.
    pub socket: PathBuf,
    /// The handler of pods that name none; empty is the built-in launcher.
    pub default_runtime: String,
    /// RuntimeClass handlers by name.
    pub runtimes: BTreeMap<String, RuntimeConfig>,
    /// Folder of hooks for containers; empty is none.
    pub hooks_dir: PathBuf,
    /// The time zone of containers: `local` for the node's, or a zone's name; empty leaves it to their images.
    pub timezone: String,
    /// Limits of containers and pods that ask for none.
    pub limits: LimitsConfig,
    /// Images.
    pub image: ImageConfig,
    /// Pod networks.
    pub network: NetworkConfig,
    /// Cgroups.
    pub cgroup: CgroupConfig,
    /// The process that holds a pod.
    pub shim: ShimConfig,
    /// Where clients of exec, attach and port-forward come to.
    pub streaming: tripod_streaming::Config,
    /// The log.
    pub log: LogConfig,
    /// Figures about the daemon.
    pub metrics: MetricsConfig,
}

/// Settings of the process that holds a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShimConfig {
    /// The program; empty looks beside the daemon's own, then along PATH.
    pub program: PathBuf,
}

/// Settings of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives for parts of the program.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of figures about the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address of an HTTP listener for `/metrics` in the format of Prometheus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/tripod".into(),
            state: "/run/tripod".into(),
            socket: "/run/tripod/tripod.sock".into(),
            default_runtime: String::new(),
            runtimes: BTreeMap::new(),
            hooks_dir: PathBuf::new(),
            timezone: String::new(),
            limits: LimitsConfig::default(),
            image: ImageConfig::default(),
            network: NetworkConfig::default(),
            cgroup: CgroupConfig::default(),
            shim: ShimConfig::default(),
            streaming: tripod_streaming::Config::default(),
            log: LogConfig::default(),
            metrics: MetricsConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// the file cannot be read
    #[error("read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// the file is not valid
    #[error("the configuration {path} is not valid: {source}\n`tripod config dump` shows every setting that there is")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, setting and what is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// a setting has a value that cannot work
    #[error("{origin}: the setting {setting} is not valid: {problem}")]
    Value {
        /// Where it was set: a file or a flag.
        origin: String,
        /// Its name.
        setting: String,
        /// What is wrong with it.
        problem: String,
    },
    /// the log cannot be written
    #[error("start the log: {0}")]
    Log(String),
}

/// A setting with a value that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {problem}")]
pub(crate) struct Wrong {
    setting: String,
    problem: String,
}

impl Wrong {
    fn new(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), problem: problem.into() }
    }

    /// With the place where the value comes from.
    fn of(self, path: &Path, flags: &Overrides) -> ConfigError {
        let Self { setting, problem } = self;
        let flag = match setting.as_str() {
            "root" if flags.root.is_some() => Some("--root"),
            "state" if flags.state.is_some() => Some("--state"),
            "socket" if flags.socket.is_some() => Some("--socket"),
            "log.level" if flags.log_level.is_some() => Some("--log-level (or TRIPOD_LOG)"),
            _ => None,
        };
        let origin =
            flag.map_or_else(|| format!("the configuration {}", path.display()), |flag| format!("the flag {flag}"));
        ConfigError::Value { origin, setting, problem }
    }
}

/// Settings from the command line; they win over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Folder of what survives a reboot.
    pub root: Option<PathBuf>,
    /// Folder of what does not.
    pub state: Option<PathBuf>,
    /// The CRI socket.
    pub socket: Option<PathBuf>,
    /// Level of the log.
    pub log_level: Option<String>,
    /// Format of the log.
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Reads the file that a flag names, or the default one if it is there, and puts the flags on top.
    pub fn load(file: Option<&Path>, flags: Overrides) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_PATH));
        let config = match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => Self::default(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        let given = flags.clone();
        config.with(flags).checked().map_err(|wrong| wrong.of(path, &given))
    }

    /// Reads the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    fn with(mut self, flags: Overrides) -> Self {
        // A daemon with a state folder of its own has its socket there, unless somebody says otherwise.
        let socket_follows = self.socket == Self::default().socket;
        if let Some(state) = flags.state {
            if socket_follows {
                self.socket = state.join("tripod.sock");
            }
            self.state = state;
        }
        self.root = flags.root.unwrap_or(self.root);
        self.socket = flags.socket.unwrap_or(self.socket);
        self.log.level = flags.log_level.unwrap_or(self.log.level);
        self.log.format = flags.log_format.unwrap_or(self.log.format);
        self
    }

    fn checked(self) -> Result<Self, Wrong> {
        let paths = [
            ("root", &self.root),
            ("state", &self.state),
            ("socket", &self.socket),
            ("image.certs_dir", &self.image.certs_dir),
        ];
        for (setting, path) in paths {
            if !path.is_absolute() {
                return Err(Wrong::new(setting, format!("{} is not an absolute path", path.display())));
            }
        }
        let absent = [
            ("image.policy_file", &self.image.policy_file),
            ("image.verifiers.bin_dir", &self.image.verifiers.bin_dir),
        ];
        for (setting, path) in absent {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                return Err(Wrong::new(setting, format!("{} is not an absolute path", path.display())));
            }
        }
        let known = |url: &str| ["https://", "http://", "file:///"].iter().any(|scheme| url.starts_with(scheme));
        if let Some((scope, url)) = self.image.lookaside.iter().find(|(_, url)| !known(url)) {
            let why = format!("{url} for {scope:?} begins with none of https://, http:// and file:///");
            return Err(Wrong::new("image.lookaside", why));
        }
        if self.image.parallel_layers == 0 {
            return Err(Wrong::new("image.parallel_layers", "0 is too few; it must be at least 1"));
        }
        if self.image.ranges.connections == 0 {
            return Err(Wrong::new("image.ranges.connections", "0 is too few; 1 is for one connection a blob"));
        }
        if self.image.ranges.piece_bytes < 64 << 10 {
            return Err(Wrong::new("image.ranges.piece_bytes", "it must be at least 65536"));
        }
        if !self.hooks_dir.as_os_str().is_empty() && !self.hooks_dir.is_absolute() {
            return Err(Wrong::new("hooks_dir", format!("{} is not an absolute path", self.hooks_dir.display())));
        }
        telemetry::filter(&self.log.level).map_err(|problem| Wrong::new("log.level", problem))?;
        runtimes::check(&self.default_runtime, &self.runtimes)?;
        self.handler_limits()?;
        Ok(self)
    }

    /// The settings of the image service, with what is not in its section of the file.
    pub(crate) fn image_service(&self) -> ImageConfig {
        ImageConfig { root: self.root.clone(), proxies: Proxies::from_env(), ..self.image.clone() }
    }
}

/// The settings as a file with comments, ready to be edited.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dump::write(self, f)
    }
}

#[cfg(test)]
mod tests;

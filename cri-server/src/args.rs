//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{LogFormat, Overrides};

/// A Kubernetes node runtime
///
/// tripod runs pods for the kubelet (or crictl) behind the Container Runtime Interface, and containers for people from
/// the command line.
#[derive(Debug, Parser)]
#[command(
    name = "tripod",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "First steps:
  tripod run --rm docker.io/library/busybox echo hello
                          runs a container; no daemon needed
  tripod serve            the daemon, as root; then, in another terminal:
  crictl --runtime-endpoint unix:///run/tripod/tripod.sock info

The kubelet takes it with --container-runtime-endpoint=unix:///run/tripod/tripod.sock.
`tripod COMMAND --help` has examples for every command."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    #[command(after_help = "Examples:
  tripod serve
  tripod serve --root /srv/tripod --state /run/tripod2 --log-level debug
                          a second daemon; its socket is /run/tripod2/tripod.sock

Several daemons can run side by side if each has its own --root and --state and, in its configuration, its own
network.instance and cgroup.base. SIGTERM ends the daemon and no container: the next one takes them up.
Next: `tripod ps`, `tripod run --rm IMAGE CMD`, `tripod config dump`.")]
    Serve(ServeArgs),
    /// Settings of the daemon
    Config {
        /// What about them.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show the version
    Version,
    /// Operator's commands.
    #[command(flatten)]
    Operator(tripod_cli::Command),
}

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Flags that win over the configuration file.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Configuration file [default: /etc/tripod/config.toml if it is there]
    #[arg(long, env = "TRIPOD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of what survives a reboot: images, layers, records [default: /var/lib/tripod]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Folder of what does not: sockets and files of running pods [default: /run/tripod]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The CRI socket [default: tripod.sock in the state folder]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// error, warn, info, debug or trace, or directives as info,tripod_engine=debug [default: info]
    #[arg(long, env = "TRIPOD_LOG", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How a line of the log looks [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Commands about settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the settings that the daemon would run with, as a commented file
    #[command(after_help = "Examples:
  tripod config dump > /etc/tripod/config.toml
                          a file to edit; delete what you do not change
  tripod config dump --config my.toml
                          checks a file")]
    Dump(Settings),
}

impl Settings {
    /// File and flags, for [`crate::config::Config::load`].
    pub fn split(self) -> (Option<PathBuf>, Overrides) {
        let Self { config, root, state, socket, log_level, log_format } = self;
        (config, Overrides { root, state, socket, log_level, log_format })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}

//! What can be typed. The texts here are the help.

mod help;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    forward::{Address, Ports},
    image::ImageCommand,
    log::Moment,
    stream::keys::DetachKeys,
};

/// Where the daemon listens unless somebody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/tripod/tripod.sock";

/// Operator's commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a new container and show what it says
    ///
    /// Pulls the image if it is not there, makes a pod with one container, shows the container's output and ends with
    /// its exit code. Works without a daemon too: where none answers, one runs inside this command for as long as it
    /// takes.
    #[command(after_help = help::RUN)]
    Run(Box<RunArgs>),
    /// List containers
    #[command(after_help = "Examples:
  tripod ps                 what runs
  tripod ps -a              what has ended, too
  tripod ps --operations    what the daemon is doing right now, and for how long

Next: `tripod logs ID`, `tripod exec ID CMD`, `tripod inspect ID`.")]
    Ps(PsArgs),
    /// List pods
    #[command(after_help = "Next: `tripod inspect POD`, `tripod stop POD`, `tripod rm POD`.")]
    Pods(PodsArgs),
    /// List images
    #[command(after_help = "Next: `tripod run --rm IMAGE CMD`, `tripod rmi IMAGE`.")]
    Images(ImagesArgs),
    /// Fetch an image
    #[command(after_help = "Examples:
  tripod pull docker.io/library/busybox:latest
  tripod pull --username me --password-stdin registry.example/app:1 < password

Next: `tripod run --rm IMAGE CMD`. Mirrors and certificates of registries: /etc/tripod/certs.d/HOST/hosts.toml.")]
    Pull(PullArgs),
    /// Remove images with all their names
    #[command(after_help = "Layers go when nothing uses them any more: a container that runs keeps its own.")]
    Rmi(RmiArgs),
    /// Everything about images: list, fetch, remove, inspect
    #[command(
        after_help = "Works without a daemon too: where none answers, the store is opened by this command for as long as
it takes. `tripod images`, `tripod pull` and `tripod rmi` are `ls`, `pull` and `rm` of these."
    )]
    Image {
        /// What about them.
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Show the log of a container
    #[command(after_help = help::LOGS)]
    Logs(LogsArgs),
    /// Run a command in a running container
    #[command(after_help = help::EXEC)]
    Exec(ExecArgs),
    /// Connect to the program that a container runs
    #[command(after_help = help::ATTACH)]
    Attach(AttachArgs),
    /// Make ports of a pod ports of this machine
    #[command(after_help = help::PORT_FORWARD)]
    PortForward(PortForwardArgs),
    /// Stop containers, or pods with all their containers
    #[command(
        after_help = "A container gets its stop signal (SIGTERM if its image names none), and SIGKILL when the time is over.
Next: `tripod rm ID`."
    )]
    Stop(StopArgs),
    /// Remove containers, or pods with all their containers
    #[command(
        after_help = "Nothing is left of them: no process, mount, address, cgroup or file. The image stays: `tripod rmi`."
    )]
    Rm(RmArgs),
    /// Show everything about a container, pod or image as JSON
    #[command(after_help = "Examples:
  tripod inspect web | jq .info.pid
  tripod inspect docker.io/library/busybox:latest")]
    Inspect(InspectArgs),
    /// Show what containers use
    #[command(after_help = "CPU is measured over a second: 100% is one CPU.")]
    Stats(StatsArgs),
}

/// Which daemon.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// The daemon's CRI socket
    #[arg(long, env = "TRIPOD_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
}

/// Where this command finds what it needs to be the daemon itself, if none answers.
#[derive(Debug, Clone, Default, Args)]
pub struct Local {
    /// Configuration file, where no daemon answers [default: /etc/tripod/config.toml if it is there]
    #[arg(long, value_name = "FILE", help_heading = "Without a daemon")]
    pub config: Option<PathBuf>,
    /// Folder of images and records, where no daemon answers [default: the configuration's]
    #[arg(long, value_name = "DIR", help_heading = "Without a daemon")]
    pub root: Option<PathBuf>,
    /// Folder of sockets, where no daemon answers [default: the configuration's]
    #[arg(long, value_name = "DIR", help_heading = "Without a daemon")]
    pub state: Option<PathBuf>,
}

/// How to reach the daemon's streaming server.
#[derive(Debug, Clone, Args)]
pub struct Streaming {
    /// Certificates in PEM that the daemon's streaming server is trusted by, where it speaks TLS beyond loopback
    #[arg(long, env = "TRIPOD_STREAMING_CA", value_name = "FILE")]
    pub streaming_ca: Option<PathBuf>,
    /// Certificate in PEM to show to the daemon's streaming server, where it asks for one
    #[arg(long, env = "TRIPOD_STREAMING_CERT", value_name = "FILE", requires = "streaming_key")]
    pub streaming_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "TRIPOD_STREAMING_KEY", value_name = "FILE", requires = "streaming_cert")]
    pub streaming_key: Option<PathBuf>,
}

/// When to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// If it is not there
    Missing,
    /// To have the newest
    Always,
    /// Not at all
    Never,
}

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// One of its own, with an address
    Pod,
    /// The host's
    Host,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Remove the pod when the command has ended
    #[arg(long, conflicts_with = "detach")]
    pub rm: bool,
    /// Show the container's ID and leave it running
    #[arg(short, long)]
    pub detach: bool,
    /// Name of pod and container [default: one made up]
    #[arg(long)]
    pub name: Option<String>,
    /// When to pull the image
    #[arg(long, value_enum, default_value = "missing")]
    pub pull: PullPolicy,
    /// Environment variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Folder or file of the host in the container; may be repeated
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    pub volume: Vec<String>,
    /// Port of the host that leads to the container; may be repeated
    #[arg(short, long, value_name = "HOST:CONTAINER[/udp]")]
    pub publish: Vec<String>,
    /// Network of the pod
    #[arg(long, value_enum, default_value = "pod")]
    pub network: Network,
    /// Working directory [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User as a name or UID[:GID] [default: the image's]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Program to run in place of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Memory limit, as 512m or 2g [default: none]
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// CPU limit, as 0.5 or 2 [default: none]
    #[arg(long, value_name = "CPUS")]
    pub cpus: Option<f64>,
    /// All capabilities and devices of the host
    #[arg(long)]
    pub privileged: bool,
    /// Read-only root filesystem
    #[arg(long)]
    pub read_only: bool,
    /// Say nothing about pulling
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub local: Local,
    /// Image, as docker.io/library/busybox:latest
    pub image: String,
    /// Program and arguments, in place of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Those that do not run, too
    #[arg(short, long)]
    pub all: bool,
    /// Only IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// What the daemon is doing, in place of containers
    #[arg(long, conflicts_with_all = ["all", "quiet"])]
    pub operations: bool,
}

/// Arguments of `pods`.
#[derive(Debug, Args)]
pub struct PodsArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Only IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub local: Local,
    /// Only IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub local: Local,
    /// User name for the registry
    #[arg(long, requires = "password_stdin")]
    pub username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Show the image's ID only
    #[arg(short, long)]
    pub quiet: bool,
    /// Image, as docker.io/library/busybox:latest
    pub image: String,
}

/// Arguments of `rmi`.
#[derive(Debug, Args)]
pub struct RmiArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub local: Local,
    /// Images, by name, digest or ID
    #[arg(required = true)]
    pub images: Vec<String>,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Go on until the container ends
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines [default: all]
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Only lines from then on: 10m, 1h30m or 2d ago, or a moment as 2026-01-31T10:00:00Z or 2026-01-31
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Only lines until then
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// The time before each line
    #[arg(short, long)]
    pub timestamps: bool,
    /// The attempt before this one
    #[arg(short, long)]
    pub previous: bool,
    /// Container, by ID, beginning of the ID, or name
    pub container: String,
}

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub streaming: Streaming,
    /// Hand standard input on to the command
    #[arg(short, long, visible_alias = "stdin")]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Seconds after which the session ends, and with it the command; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub timeout: u32,
    /// Container, by ID, beginning of the ID, or name
    pub container: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub streaming: Streaming,
    /// Hand standard input on to the container
    #[arg(short, long, visible_alias = "stdin")]
    pub interactive: bool,
    /// Make this terminal the container's [default: with -i, if both have one]
    #[arg(short, long)]
    pub tty: bool,
    /// Keys that leave the container running: characters and ctrl-LETTER, divided by commas; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: DetachKeys,
    /// Container, by ID, beginning of the ID, or name
    pub container: String,
}

/// Arguments of `port-forward`.
#[derive(Debug, Args)]
pub struct PortForwardArgs {
    #[command(flatten)]
    pub connection: Connection,
    #[command(flatten)]
    pub streaming: Streaming,
    /// Addresses of this machine to listen at, divided by commas: IP addresses, or localhost
    #[arg(long, value_name = "ADDRESS", default_value = "localhost", value_delimiter = ',')]
    pub address: Vec<Address>,
    /// Pod, by ID, beginning of the ID, or name; or a container in it
    pub pod: String,
    /// Port here and port in the pod; without the first the same, `:PORT` for any that is free here
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    pub ports: Vec<Ports>,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Seconds until a container is killed
    #[arg(short, long, default_value_t = 10, value_name = "SECONDS")]
    pub timeout: u32,
    /// Containers or pods, by ID, beginning of the ID, or name
    #[arg(required = true)]
    pub ids: Vec<String>,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Even if it runs
    #[arg(short, long)]
    pub force: bool,
    /// Containers or pods, by ID, beginning of the ID, or name
    #[arg(required = true)]
    pub ids: Vec<String>,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Container, pod or image
    pub object: String,
    /// Show a container as an OCI runtime specification (config.json)
    #[arg(long)]
    pub spec: bool,
}

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    pub connection: Connection,
    /// Containers, by ID, beginning of the ID, or name [default: all]
    pub containers: Vec<String>,
}

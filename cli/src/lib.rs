//! Operator's commands of the tripod binary: clients of the CRI socket, like crictl, with the familiar verbs.
//!
//! Commands come in as arguments, go to the daemon as CRI calls, and their answers to standard output as tables. `run` and
//! what is about images may do without a daemon: they then ask for one of their own through [`Embed`].
#![forbid(unsafe_code)]

mod args;
mod client;
mod embed;
mod error;
mod exec;
mod forward;
mod image;
mod inspect;
mod life;
mod list;
mod log;
mod progress;
mod pull;
mod request;
mod run;
mod show;
mod stats;
mod stop;
mod stream;
mod terminal;

use std::process::ExitCode;

pub use args::{Command, DEFAULT_SOCKET, Local};
pub use client::Client;
pub use embed::{Embed, Embedded};
pub use error::CliError;
pub use forward::{Address, Ports};
pub use image::ImageCommand;
pub use log::Moment;
pub use stream::keys::DetachKeys;

/// Carries a command out. The exit code is the command's own where one runs in a container.
pub async fn run(command: Command, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    match command {
        Command::Run(args) => run::run(args, embed).await,
        Command::Ps(args) => list::containers(args).await,
        Command::Pods(args) => list::pods(args).await,
        Command::Images(args) => list::images(args, embed).await,
        Command::Pull(args) => pull::command(args, embed).await,
        Command::Rmi(args) => pull::remove(args, embed).await,
        Command::Image { command } => image::command(command, embed).await,
        Command::Logs(args) => log::command(args).await,
        Command::Exec(args) => exec::exec(args).await,
        Command::Attach(args) => exec::attach(args).await,
        Command::PortForward(args) => forward::command(args).await,
        Command::Stop(args) => stop::stop(args).await,
        Command::Rm(args) => stop::remove(args).await,
        Command::Inspect(args) => inspect::command(args).await,
        Command::Stats(args) => stats::command(args).await,
    }
}

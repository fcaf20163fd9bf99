//! `tripod image`: the commands about images, with a daemon or without.

mod archive;
mod check;
mod df;
mod load;
mod prune;
mod save;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::{
    CliError, Client, Embed,
    args::{Connection, ImagesArgs, Local, PullArgs, RmiArgs},
    inspect, list, pull,
};

/// What can be done about images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images
    #[command(
        visible_alias = "list",
        after_help = "The same as `tripod images`. Next: `tripod image df` tells the disk."
    )]
    Ls(ImagesArgs),
    /// Fetch an image
    #[command(after_help = "The same as `tripod pull`.")]
    Pull(PullArgs),
    /// Remove images with all their names
    #[command(after_help = "The same as `tripod rmi`. Layers go when nothing uses them any more.")]
    Rm(RmiArgs),
    /// Show everything about an image as JSON
    Inspect(InspectImageArgs),
    /// Take images out of an archive into the store
    #[command(after_help = load::HELP)]
    Load(load::LoadArgs),
    /// Write images into an archive
    #[command(after_help = save::HELP)]
    Save(save::SaveArgs),
    /// Remove images that nobody uses
    #[command(after_help = "Examples:
  tripod image prune                    images without a tag, and what nothing refers to
  tripod image prune --all -n           what would go if all that no container uses went
  tripod image prune --all --filter until=240h --filter label=team=blue

Images that a container uses, running or not, and those in the setting image.pinned stay. On a node with a kubelet
that collects images itself, what --all removes is pulled again when it is needed.")]
    Prune(prune::PruneArgs),
    /// Show what the disk is used for
    #[command(
        after_help = "SHARED is of layers that other images have as well, UNIQUE is what would be free without the image."
    )]
    Df(df::DfArgs),
    /// Look for damage to the store, and repair it
    #[command(after_help = "Examples:
  tripod image check                    reads every file of every layer; ends with 1 if something is wrong
  tripod image check --repair           fetches again what is broken
  tripod image check --repair --creds me registry.example/app:1 < password

Containers that run keep the files that they have until they are made anew.")]
    Check(check::CheckArgs),
}

/// Arguments of `image inspect`.
#[derive(Debug, Args)]
pub struct InspectImageArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    local: Local,
    /// Image, by name, digest or ID
    image: String,
}

pub(crate) async fn command(command: ImageCommand, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    match command {
        ImageCommand::Ls(args) => list::images(args, embed).await,
        ImageCommand::Pull(args) => pull::command(args, embed).await,
        ImageCommand::Rm(args) => pull::remove(args, embed).await,
        ImageCommand::Load(args) => load::command(args, embed).await,
        ImageCommand::Save(args) => save::command(args, embed).await,
        ImageCommand::Prune(args) => prune::command(args, embed).await,
        ImageCommand::Df(args) => df::command(args, embed).await,
        ImageCommand::Check(args) => check::command(args, embed).await,
        ImageCommand::Inspect(args) => {
            let InspectImageArgs { connection, local, image } = args;
            with_store(&connection, &local, embed, async |mut client| {
                let shown = inspect::image(&mut client, &image).await.map_err(|error| match error {
                    CliError::NotFound(_) => {
                        CliError::NotFound(format!("no image {image:?}; `tripod image ls` shows all"))
                    }
                    other => other,
                })?;
                println!("{shown:#}");
                Ok(ExitCode::SUCCESS)
            })
            .await
        }
    }
}

/// Does work with the daemon that answers, or else with the store opened in this process.
pub(crate) async fn with_store<T>(
    connection: &Connection,
    local: &Local,
    embed: &dyn Embed,
    work: impl AsyncFnOnce(Client) -> Result<T, CliError>,
) -> Result<T, CliError> {
    match Client::connect(&connection.socket).await {
        Err(CliError::Connect { .. }) => {}
        client => return work(client?).await,
    }
    let opened = embed.store(local.clone()).await;
    let opened = opened.map_err(|source| CliError::Embed { socket: connection.socket.clone(), source })?;
    let outcome = match Client::connect(opened.socket()).await {
        Ok(client) => work(client).await,
        Err(error) => Err(error),
    };
    opened.stop().await;
    outcome
}

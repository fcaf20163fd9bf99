//! `tripod image save`: from the store into an archive.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use tripod_cri_api::own::{ArchiveFormat, SaveRequest};

use super::{
    archive::{Target, bar},
    with_store,
};
use crate::{
    CliError, Client, Embed,
    args::{Connection, Local},
};

pub(super) const HELP: &str = "Examples:
  tripod image save -o app.tar registry.example/app:1
  tripod image save --format docker-archive app:1 | docker load
  tripod image save app:1 other:2 | zstd > both.tar.zst

Image IDs and layers stay what they are. Layers are written as they were before compression, because the store keeps no
compressed copy: pack the archive if its size matters.";

/// Form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An OCI layout in a tar
    OciArchive,
    /// The same with a manifest.json, for `docker load`
    DockerArchive,
}

/// Arguments of `image save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    local: Local,
    /// File to write; - is standard output [default: -]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Form of the archive
    #[arg(long, value_enum, default_value = "oci-archive")]
    format: Format,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
    /// Images, by name, digest or ID; in the archive only those have a name that are given by one
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub(super) async fn command(args: SaveArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let SaveArgs { connection, local, output, format, quiet, images } = args;
    let mut target = Target::open(output.as_deref())?;
    let format = match format {
        Format::OciArchive => ArchiveFormat::OciArchive,
        Format::DockerArchive => ArchiveFormat::DockerArchive,
    };
    let request = SaveRequest { images, format: format.into() };
    with_store(&connection, &local, embed, async |mut client| {
        tokio::select! {
            saved = save(&mut client, request, &mut target, quiet) => saved,
            // So that half an archive does not stay.
            _ = tokio::signal::ctrl_c() => Err(CliError::Usage("interrupted: nothing is saved".into())),
        }
    })
    .await?;
    target.finish().map_err(CliError::io("write the archive"))?;
    Ok(ExitCode::SUCCESS)
}

async fn save(client: &mut Client, request: SaveRequest, target: &mut Target, quiet: bool) -> Result<(), CliError> {
    let mut pieces = client.own.save(request).await.map_err(CliError::call("save"))?.into_inner();
    let mut progress = None;
    let (mut size, mut written) = (0, 0);
    while let Some(piece) = pieces.message().await.map_err(CliError::call("save"))? {
        let bar = progress.get_or_insert_with(|| {
            size = piece.size;
            bar("saving", Some(piece.size), quiet)
        });
        target.write(&piece.data).map_err(CliError::io("write the archive"))?;
        written += piece.data.len() as u64;
        bar.set_position(written);
    }
    if let Some(bar) = progress {
        bar.finish_and_clear();
    }
    if written != size {
        return Err(CliError::Stream(format!(
            "the archive ended after {written} of {size} bytes: the daemon has ended?"
        )));
    }
    Ok(())
}

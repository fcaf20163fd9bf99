//! `tripod image load`: from an archive into the store.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use futures::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tripod_cri_api::own::{LoadRequest, LoadedImage};

use super::{
    archive::{Source, bar},
    with_store,
};
use crate::{
    CliError, Client, Embed,
    args::{Connection, Local},
};

pub(super) const HELP: &str = "Examples:
  tripod image load -i image.tar
  tripod image load -i layout/ --name registry.example/app:1
  tripod image load --from oci:layout:1 --name registry.example/app:1
  docker save app:1 | tripod image load
  ssh other tripod image save app:1 | tripod image load

Takes OCI layouts (a folder, or a tar) and what `docker save` writes; a tar may be in gzip or zstd. Each layer is unpacked
while it is read, and those that are here already are passed over. Says ID and names of each image.";

/// Arguments of `image load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    local: Local,
    /// Archive, or folder of an OCI layout; - is standard input [default: -]
    #[arg(short, long, value_name = "FILE|DIR")]
    input: Option<PathBuf>,
    /// What skopeo is to read instead, if it is installed, as containers-storage:NAME, oci:DIR:TAG or docker-archive:FILE
    #[arg(long, value_name = "TRANSPORT:REFERENCE", conflicts_with = "input")]
    from: Option<String>,
    /// Name with a tag for the one image in it [default: the names that the archive has]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Image of a list of platforms, as linux/arm64/v8 [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Only IDs, and no progress
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn command(args: LoadArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let LoadArgs { connection, local, input, from, name, platform, quiet } = args;
    let source = match from {
        Some(from) => Source::skopeo(&from)?,
        None => Source::open(input.as_deref())?,
    };
    let first = LoadRequest {
        name: name.unwrap_or_default(),
        platform: platform.unwrap_or_default(),
        ..LoadRequest::default()
    };
    let images =
        with_store(&connection, &local, embed, async |mut client| load(&mut client, source, first, quiet).await)
            .await?;
    for LoadedImage { id, names } in images {
        match quiet || names.is_empty() {
            true => println!("{id}"),
            false => println!("{id} {}", names.join(" ")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn load(
    client: &mut Client,
    source: Source,
    first: LoadRequest,
    quiet: bool,
) -> Result<Vec<LoadedImage>, CliError> {
    let bar = bar("loading", source.size(), quiet);
    let (failed, failure) = tokio::sync::oneshot::channel();
    let (mut failed, shown) = (Some(failed), bar.clone());
    let pieces = ReceiverStream::new(source.read())
        .map(|piece| piece.map(|data| LoadRequest { data: data.into(), ..LoadRequest::default() }))
        // Without this the daemon takes the archive for one that was cut off.
        .chain(futures::stream::iter([Ok(LoadRequest { last: true, ..LoadRequest::default() })]))
        .scan((), move |(), message| {
            let message = message.map_or_else(
                |error| {
                    if let Some(failed) = failed.take() {
                        let _ = failed.send(error);
                    }
                    None
                },
                |message| {
                    shown.inc(message.data.len() as u64);
                    Some(message)
                },
            );
            std::future::ready(message)
        });
    let answer = client.own.load(futures::stream::iter([first]).chain(pieces)).await;
    bar.finish_and_clear();
    // What was wrong on this side explains what the daemon says of a stream that ended early.
    let mut failure = failure;
    if let Ok(error) = failure.try_recv() {
        return Err(CliError::io("read the archive")(error));
    }
    Ok(answer.map_err(CliError::call("load"))?.into_inner().images)
}

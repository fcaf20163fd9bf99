//! `image df`: what the disk is used for.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tripod_cri_api::own::{Amount, DiskUsageRequest, DiskUsageResponse, ImageUsage};

use super::with_store;
use crate::{
    CliError, Embed,
    args::{Connection, Local},
    show::{bytes, print, short, table},
};

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs; sizes in bytes
    Json,
}

/// Arguments of `image df`.
#[derive(Debug, Args)]
pub struct DfArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    local: Local,
    /// How the answer looks
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
}

pub(super) async fn command(args: DfArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let DfArgs { connection, local, output } = args;
    let usage = with_store(&connection, &local, embed, async |mut client| {
        let answer = client.own.disk_usage(DiskUsageRequest {}).await;
        Ok(answer.map_err(CliError::call("ask for the use of the disk"))?.into_inner())
    })
    .await?;
    match output {
        Output::Table => show(&usage),
        Output::Json => println!("{:#}", json(&usage)),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(usage: &DiskUsageResponse) {
    let mut rows = table(&["IMAGE", "ID", "SIZE", "SHARED", "UNIQUE", "CONTAINERS"]);
    for image in &usage.images {
        let containers = if image.pinned {
            format!("{} (pinned)", image.containers.len())
        } else {
            image.containers.len().to_string()
        };
        rows.add_row([
            name(image),
            short(&image.id),
            bytes(image.bytes),
            bytes(image.shared_bytes),
            bytes(image.unique_bytes),
            containers,
        ]);
    }
    print(&rows);
    println!();
    let mut rows = table(&["WHAT", "COUNT", "SIZE"]);
    for (what, amount) in [
        ("layers", usage.layers),
        ("manifests, configurations", usage.blobs),
        ("writable layers", usage.writable),
        ("coming and going", usage.temporary),
    ] {
        let Amount { count, bytes: size } = amount.unwrap_or_default();
        rows.add_row([what.to_owned(), count.to_string(), bytes(size)]);
    }
    print(&rows);
    println!();
    let saved = usage.saved.unwrap_or_default();
    println!("{} are saved by {} files that layers have in common.", bytes(saved.bytes), saved.count);
    println!(
        "{} could be had back by `tripod image prune`, {} with --all.",
        bytes(usage.dangling_bytes),
        bytes(usage.unused_bytes)
    );
    let (free, total) = (bytes(usage.free_bytes), bytes(usage.total_bytes));
    println!("{free} of {total} are free on this filesystem; pulls leave {} free.", bytes(usage.min_free_bytes));
}

fn name(image: &ImageUsage) -> String {
    match image.names.as_slice() {
        [] => "<none>".to_owned(),
        [one] => one.clone(),
        [one, more @ ..] => format!("{one} (+{})", more.len()),
    }
}

fn json(usage: &DiskUsageResponse) -> Value {
    let amount = |amount: Option<Amount>| {
        let Amount { count, bytes } = amount.unwrap_or_default();
        json!({ "count": count, "bytes": bytes })
    };
    let image = |image: &ImageUsage| {
        json!({
            "id": image.id,
            "names": image.names,
            "created": (!image.created.is_empty()).then_some(&image.created),
            "bytes": image.bytes,
            "shared_bytes": image.shared_bytes,
            "unique_bytes": image.unique_bytes,
            "dangling": image.dangling,
            "pinned": image.pinned,
            "containers": image.containers,
        })
    };
    json!({
        "images": usage.images.iter().map(image).collect::<Vec<_>>(),
        "layers": amount(usage.layers),
        "saved": amount(usage.saved),
        "blobs": amount(usage.blobs),
        "writable": amount(usage.writable),
        "temporary": amount(usage.temporary),
        "dangling_bytes": usage.dangling_bytes,
        "unused_bytes": usage.unused_bytes,
        "total_bytes": usage.total_bytes,
        "free_bytes": usage.free_bytes,
        "min_free_bytes": usage.min_free_bytes,
    })
}

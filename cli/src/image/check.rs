//! `image check`: damage to the store, found and repaired.

use std::{io::Read, process::ExitCode};

use clap::Args;
use tripod_cri_api::own::{CheckRequest, CheckSummary, check_event::Event};

use super::with_store;
use crate::{
    CliError, Client, Embed,
    args::{Connection, Local},
    show::{bytes, short},
};

/// Arguments of `image check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    local: Local,
    /// Fetch again what is broken, from where its images came
    #[arg(long)]
    repair: bool,
    /// User and password for that; a password that is left out is read from standard input
    #[arg(long, value_name = "USER[:PASSWORD]", requires = "repair")]
    creds: Option<String>,
    /// Say nothing but what is wrong
    #[arg(short, long)]
    quiet: bool,
    /// Images, by name, digest or ID [default: all, and what containers hold beside them]
    images: Vec<String>,
}

pub(super) async fn command(args: CheckArgs, embed: &dyn Embed) -> Result<ExitCode, CliError> {
    let CheckArgs { connection, local, repair, creds, quiet, images } = args;
    let (username, password) = creds.map(credentials).transpose()?.unwrap_or_default();
    let request = CheckRequest { images, repair, username, password };
    let summary = with_store(&connection, &local, embed, async |client| follow(client, request, quiet).await).await?;
    if !quiet {
        let CheckSummary { images, layers, blobs, bytes: read, broken, repaired } = summary;
        println!(
            "{images} images, {layers} layers, {blobs} manifests and configurations, {} read: {}",
            bytes(read),
            match (broken, repaired) {
                (0, _) => "all is as it should be".to_owned(),
                (_, 0) => format!("{broken} broken"),
                _ => format!("{broken} were broken, {repaired} of them are right again"),
            }
        );
        if broken > 0 && !repair {
            println!("Next: `tripod image check --repair`.");
        }
    }
    Ok(if summary.broken == summary.repaired { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn credentials(text: String) -> Result<(String, String), CliError> {
    if let Some((user, password)) = text.split_once(':') {
        return Ok((user.to_owned(), password.to_owned()));
    }
    let mut password = String::new();
    let read = std::io::stdin().read_to_string(&mut password);
    read.map_err(CliError::io("read the password from standard input"))?;
    Ok((text, password.trim_end_matches(['\r', '\n']).to_owned()))
}

async fn follow(mut client: Client, request: CheckRequest, quiet: bool) -> Result<CheckSummary, CliError> {
    let step = "check the images";
    let mut events = client.own.check(request).await.map_err(CliError::call(step))?.into_inner();
    while let Some(event) = events.message().await.map_err(CliError::call(step))? {
        match event.event {
            Some(Event::Checked(checked)) if !quiet => {
                eprintln!("{}/{} {} ({})", checked.done, checked.total, object(&checked.object), bytes(checked.bytes));
            }
            Some(Event::Problem(problem)) => {
                let at = if problem.path.is_empty() { String::new() } else { format!(" {:?}:", problem.path) };
                println!("{}:{at} {}", object(&problem.object), problem.what);
            }
            Some(Event::Repaired(repaired)) => {
                println!("{}: fetched again from {}", object(&repaired.object), repaired.from);
                if !repaired.containers.is_empty() {
                    let ids: Vec<String> = repaired.containers.iter().map(|id| short(id)).collect();
                    println!("  containers that keep the old files until they are made anew: {}", ids.join(" "));
                }
            }
            Some(Event::NotRepaired(failed)) => println!("{}: stays broken: {}", object(&failed.object), failed.why),
            Some(Event::Summary(summary)) => return Ok(summary),
            // Of a newer daemon, or not wanted.
            _ => {}
        }
    }
    Err(CliError::NotFound("the check ended without a summary: the daemon has ended".to_owned()))
}

/// `layer sha256:…` with as much of the digest as people need.
fn object(object: &str) -> String {
    match object.split_once(' ') {
        Some((kind, digest)) if digest.starts_with("sha256:") => format!("{kind} {}", short(digest)),
        _ => object.to_owned(),
    }
}

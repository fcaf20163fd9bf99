//! `stats`: what containers use, over one second.

use std::{collections::HashMap, process::ExitCode, time::Duration};

use tripod_cri_api::v1::{ContainerStats, ListContainerStatsRequest};

use crate::{
    CliError, Client,
    args::StatsArgs,
    show::{bytes, print, short, table},
};

/// Over which CPU time is measured.
const SPAN: Duration = Duration::from_secs(1);

pub(crate) async fn command(args: StatsArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    let mut wanted = Vec::new();
    for word in &args.containers {
        wanted.push(client.container(word).await?.id);
    }
    let before: HashMap<String, (i64, u64)> =
        sample(&mut client).await?.iter().filter_map(|stats| Some((id(stats)?, cpu(stats)?))).collect();
    tokio::time::sleep(SPAN).await;
    let mut rows = table(&["CONTAINER", "NAME", "CPU", "MEMORY", "LIMIT", "WRITTEN"]);
    for stats in sample(&mut client).await? {
        let Some(id) = id(&stats).filter(|id| wanted.is_empty() || wanted.contains(id)) else { continue };
        let percent = before.get(&id).zip(cpu(&stats)).map(|((then, used_then), (now, used_now))| {
            used_now.saturating_sub(*used_then) as f64 * 100.0 / ((now - then).max(1) as f64)
        });
        let memory = stats.memory.unwrap_or_default();
        let working_set = memory.working_set_bytes.map(|value| value.value);
        let limit = memory.available_bytes.zip(working_set).map(|(left, used)| left.value + used);
        let attributes = stats.attributes.unwrap_or_default();
        let written = stats.writable_layer.and_then(|layer| layer.used_bytes).map(|value| value.value);
        rows.add_row([
            short(&id),
            attributes.metadata.unwrap_or_default().name,
            percent.map_or_else(unknown, |percent| format!("{percent:.1}%")),
            working_set.map_or_else(unknown, bytes),
            limit.map_or_else(|| "none".to_owned(), bytes),
            written.map_or_else(unknown, bytes),
        ]);
    }
    print(&rows);
    Ok(ExitCode::SUCCESS)
}

fn unknown() -> String {
    "-".to_owned()
}

async fn sample(client: &mut Client) -> Result<Vec<ContainerStats>, CliError> {
    let answer = client.runtime.list_container_stats(ListContainerStatsRequest { filter: None }).await;
    Ok(answer.map_err(CliError::call("measure containers"))?.into_inner().stats)
}

fn id(stats: &ContainerStats) -> Option<String> {
    stats.attributes.as_ref().map(|attributes| attributes.id.clone())
}

fn cpu(stats: &ContainerStats) -> Option<(i64, u64)> {
    let cpu = stats.cpu.as_ref()?;
    Some((cpu.timestamp, cpu.usage_core_nano_seconds?.value))
}

//! Measures a CRI runtime through its socket, as kubelet would use it. It knows nothing of tripod, so that a peer is
//! measured by the same program. `bench/run` starts the daemons and calls it.
#![forbid(unsafe_code)]

mod exec;
mod inside;
mod logs;
mod memory;
mod pods;
mod probes;
mod processes;
mod pull;
mod reader;
mod remote;
mod samples;
mod spdy;
mod streams;
mod target;
mod websocket;

use std::{error::Error, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use processes::Processes;
use remote::Transport;
use target::Target;

/// Why something could not be measured.
type Failure = Box<dyn Error + Send + Sync>;

/// Measures a CRI runtime through its socket.
#[derive(Debug, Parser)]
enum Arguments {
    /// Measures.
    Measure(Measurement),
    /// The part of this program that runs in a container which is measured.
    #[command(subcommand, hide = true)]
    Inside(inside::Work),
}

#[derive(Debug, clap::Args)]
struct Measurement {
    /// The runtime's socket.
    #[arg(long)]
    socket: PathBuf,
    /// The image of the containers; it needs `sleep` and `true`.
    #[arg(long)]
    image: String,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// One pod after the other: the time of every call.
    Pods {
        /// How many pods are counted; two more warm up.
        #[arg(long, default_value_t = 40)]
        count: usize,
        /// The host's network instead of a network of their own.
        #[arg(long)]
        host_network: bool,
    },
    /// Many pods at a time: pods that start per second.
    Burst {
        /// How many pods.
        #[arg(long, default_value_t = 64)]
        count: usize,
        /// How many at a time.
        #[arg(long, default_value_t = 8)]
        parallel: usize,
        /// The host's network instead of a network of their own.
        #[arg(long)]
        host_network: bool,
    },
    /// Memory of the runtime's processes while many pods run.
    Memory {
        /// How many pods.
        #[arg(long, default_value_t = 50)]
        count: usize,
        #[command(flatten)]
        processes: Processes,
    },
    /// Pulls the image and removes it again.
    Pull {
        /// How often.
        #[arg(long, default_value_t = 3)]
        count: usize,
    },
    /// Round trips of a command that does nothing: ExecSync, and through the streaming server.
    Exec {
        /// How often each.
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// How many at a time when many are.
        #[arg(long, default_value_t = 16)]
        parallel: usize,
        /// How to speak to the streaming server; all ways by default.
        #[arg(long)]
        transport: Vec<Transport>,
    },
    /// Processors' time that exec probes take.
    Probes {
        /// Probes a second.
        #[arg(long, default_value_t = 100.0)]
        rate: f64,
        /// How many pods, with a container each.
        #[arg(long, default_value_t = 50)]
        count: usize,
        /// For how long, after as long without probes.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        #[command(flatten)]
        processes: Processes,
    },
    /// Throughput of exec and port-forward, latency of port-forward.
    Streams {
        /// Bytes each way.
        #[arg(long, default_value_t = 1_000_000_000)]
        bytes: u64,
        /// Pings and connections of which the medians are taken.
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// How to speak to the streaming server; all ways by default.
        #[arg(long)]
        transport: Vec<Transport>,
        #[command(flatten)]
        processes: Processes,
    },
    /// Throughput of logs.
    Logs {
        /// Where the logs are while they are measured.
        #[arg(long)]
        folder: PathBuf,
        #[command(flatten)]
        limits: logs::Limits,
        #[command(flatten)]
        processes: Processes,
    },
}

fn main() -> Result<(), Failure> {
    match Arguments::parse() {
        Arguments::Inside(work) => Ok(inside::work(&work)?),
        Arguments::Measure(measurement) => tokio::runtime::Runtime::new()?.block_on(measure(measurement)),
    }
}

async fn measure(measurement: Measurement) -> Result<(), Failure> {
    let target = &Target::connect(&measurement.socket, &measurement.image)?;
    let result = match measurement.measure {
        Measure::Pods { count, host_network } => pods::one_by_one(target, count, host_network).await?,
        Measure::Burst { count, parallel, host_network } => pods::burst(target, count, parallel, host_network).await?,
        Measure::Memory { count, processes } => memory::of_pods(target, &processes, count).await?,
        Measure::Pull { count } => pull::times(target, count).await?,
        Measure::Exec { count, parallel, transport } => {
            exec::round_trips(target, count, parallel, &or_all(transport)).await?
        }
        Measure::Probes { rate, count, seconds, processes } => {
            probes::load(target, &processes, rate, count, seconds).await?
        }
        Measure::Streams { bytes, count, transport, processes } => {
            streams::all(target, &processes, bytes, count, &or_all(transport)).await?
        }
        Measure::Logs { folder, limits, processes } => logs::throughput(target, &processes, limits, &folder).await?,
    };
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

fn or_all(transports: Vec<Transport>) -> Vec<Transport> {
    if transports.is_empty() { Transport::value_variants().to_vec() } else { transports }
}

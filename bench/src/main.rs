//! Measures a CRI runtime through its socket, as kubelet would use it. It knows nothing of tripod, so that a peer is
//! measured by the same program. `bench/run` starts the daemons and calls it.
#![forbid(unsafe_code)]

mod memory;
mod pods;
mod pull;
mod samples;
mod target;

use std::{error::Error, path::PathBuf};

use clap::{Parser, Subcommand};

use target::Target;

/// Measures a CRI runtime through its socket.
#[derive(Debug, Parser)]
struct Arguments {
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
        /// PID of the runtime's daemon.
        #[arg(long)]
        daemon: u32,
        /// Name of the processes that it has for each pod.
        #[arg(long)]
        shim: String,
    },
    /// Pulls the image and removes it again.
    Pull {
        /// How often.
        #[arg(long, default_value_t = 3)]
        count: usize,
    },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let target = Target::connect(&arguments.socket, &arguments.image)?;
    let result = match arguments.measure {
        Measure::Pods { count, host_network } => pods::one_by_one(&target, count, host_network).await?,
        Measure::Burst { count, parallel, host_network } => pods::burst(&target, count, parallel, host_network).await?,
        Measure::Memory { count, daemon, shim } => memory::of_pods(&target, count, daemon, &shim).await?,
        Measure::Pull { count } => pull::times(&target, count).await?,
    };
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

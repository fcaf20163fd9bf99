//! The `tripod` program: the daemon, and the commands of its operators.
#![forbid(unsafe_code)]

use std::{error::Error, process::ExitCode};

use clap::Parser;
use tripod_cri_server::{
    Daemon, InProcess,
    args::{Arguments, Command, ConfigCommand},
    config::{Config, LogConfig},
    start_log,
};

/// Exit code of a failure of tripod's own where a command in a container has its: 125 is what others use, too.
const NOT_THE_COMMANDS: u8 = 125;

fn main() -> ExitCode {
    tripod_sys::memory::keep_little();
    let command = Arguments::parse().command;
    let failed = match command {
        Command::Operator(
            tripod_cli::Command::Run(_) | tripod_cli::Command::Exec(_) | tripod_cli::Command::Attach(_),
        ) => NOT_THE_COMMANDS.into(),
        _ => ExitCode::FAILURE,
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Box::<dyn Error>::from)
        .and_then(|runtime| runtime.block_on(run(command)));
    outcome.unwrap_or_else(|error| {
        eprintln!("tripod: {error}");
        failed
    })
}

async fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Serve(args) => {
            let (file, flags) = args.settings.split();
            let config = Config::load(file.as_deref(), flags)?;
            start_log(&config.log)?;
            Daemon::start(&config).await?.run().await?;
        }
        Command::Config { command: ConfigCommand::Dump(settings) } => {
            let (file, flags) = settings.split();
            print!("{}", Config::load(file.as_deref(), flags)?);
        }
        Command::Version => println!("tripod {}", env!("CARGO_PKG_VERSION")),
        Command::Operator(command) => {
            // Only what goes wrong: the output belongs to the command.
            let level = std::env::var("TRIPOD_LOG").unwrap_or_else(|_| "error".to_owned());
            start_log(&LogConfig { level, ..LogConfig::default() })?;
            return Ok(tripod_cli::run(command, &InProcess).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

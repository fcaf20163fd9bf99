//! Container logs in the format of the kubelet, from files that daemon and shims leave where the kubelet wants them.

mod follow;
mod moment;
mod printer;
mod record;
mod segments;
mod sink;
mod tail;
mod watch;

use std::{io, path::Path, process::ExitCode, time::Duration};

pub(crate) use follow::Follower;
pub use moment::Moment;
use moment::Window;
pub(crate) use sink::Sink;
pub(crate) use watch::Watch;

use crate::{
    CliError, Client,
    args::LogsArgs,
    life::{self, Life, State},
};

pub(crate) async fn command(args: LogsArgs) -> Result<ExitCode, CliError> {
    let mut client = Client::connect(&args.connection.socket).await?;
    let container = match args.previous {
        true => client.container_before(&args.container).await?,
        false => client.container(&args.container).await?,
    };
    let found = life::status(&mut client, &container.id).await?;
    if found.log_path.is_empty() {
        let message = format!("container {} keeps no log: it or its pod was made without a log path", args.container);
        return Err(CliError::NotFound(message));
    }
    let path = Path::new(&found.log_path);
    let step = format!("show the log {}", path.display());
    let mut sink = Sink::standard().map_err(CliError::io(step.as_str()))?;
    let mut follower = Follower::with(path.to_owned(), Window::new(args.since, args.until), args.timestamps);
    let shown = match follower.begin(args.tail, &mut sink) {
        Ok(()) if args.follow => follow(&client, &container.id, path, &mut follower, &mut sink).await,
        Ok(()) => follower.show(&mut sink),
        Err(error) => Err(error),
    };
    match shown.and_then(|()| follower.finish(&mut sink)) {
        // Whoever read this has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::io(step)(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Shows what comes until the container ends, or until nothing that comes is to be shown.
async fn follow(client: &Client, id: &str, path: &Path, follower: &mut Follower, sink: &mut Sink) -> io::Result<()> {
    let mut watch = Watch::new(path);
    let mut life = Life::watch(client, id).await;
    let (mut ended, mut told) = (false, false);
    loop {
        // Asked before the look: a log is complete before its container shows as ended.
        follower.show(sink)?;
        if ended {
            return Ok(());
        }
        tokio::select! {
            () = watch.changed() => {}
            () = life.hint() => match life.state().await {
                State::Ended(_) | State::Gone => ended = true,
                // The container and its log do not need the daemon.
                State::Unknown(status) if !told => {
                    eprintln!("tripod: the daemon does not answer ({}); the log goes on", status.message());
                    told = true;
                }
                State::Unknown(_) => {}
                State::Alive => told = false,
            },
            () = over(follower.window().left()) => ended = true,
        }
    }
}

async fn over(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

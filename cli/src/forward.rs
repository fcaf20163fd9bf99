//! `port-forward`: ports of this machine that lead to ports of a pod.
//!
//! Each connection to a local port becomes a pair of streams, one for bytes and one for errors, of one SPDY connection
//! to the daemon's streaming server. When that breaks off, the next connection opens another: the command outlives a
//! restart of the daemon.

mod listen;
mod ports;
mod relay;
mod tunnel;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

pub use listen::Address;
pub use ports::Ports;
use tunnel::Tunnel;

use crate::{CliError, Client, args::PortForwardArgs, stream::signals::Signals};

/// Connections that were accepted and not looked at yet.
const QUEUE: usize = 64;

/// Pause when no connection can be accepted: out of descriptors, as a rule.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn command(args: PortForwardArgs) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let mut client = Client::connect(&args.connection.socket).await?;
    let pod = client.pod(&args.pod).await?;
    let (sender, mut accepted) = mpsc::channel(QUEUE);
    let mut listeners = JoinSet::new();
    let mut lines = Vec::new();
    for ports in &args.ports {
        for listener in listen::all(&args.address, ports.local).await? {
            let local = listener.local_addr().map_err(CliError::io("listen"))?;
            lines.push(format!("Forwarding from {local} -> {}", ports.remote));
            listeners.spawn(accept(listener, ports.remote, sender.clone()));
        }
    }
    let remotes = args.ports.iter().map(|ports| ports.remote).collect();
    let tunnel = Arc::new(Tunnel::open(client, pod.id, remotes, args.streaming).await?);
    // Said when a connection would succeed: scripts wait for it.
    lines.iter().for_each(|line| println!("{line}"));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some((stream, remote)) = accepted.recv() => {
                let tunnel = Arc::clone(&tunnel);
                connections.spawn(async move { relay::run(stream, remote, &tunnel).await });
            }
            Some(Ok(Err(fatal))) = connections.join_next() => return Err(fatal),
            // That is how this command is ended.
            _ = signals.end() => return Ok(ExitCode::SUCCESS),
        }
    }
}

async fn accept(listener: TcpListener, remote: u16, accepted: mpsc::Sender<(TcpStream, u16)>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if accepted.send((stream, remote)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Most are about a client that is gone already.
                if !matches!(error.kind(), std::io::ErrorKind::ConnectionAborted) {
                    eprintln!("tripod: accept a connection for port {remote}: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

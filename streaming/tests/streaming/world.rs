//! A streaming server over a backend that starts real processes on this host and connects to real listeners.

use std::{
    net::{Ipv4Addr, TcpStream},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::Stdio,
    sync::Arc,
};

use async_trait::async_trait;
use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use tokio::{process::Command, sync::oneshot, task::JoinHandle};
use tripod_streaming::{
    AttachRequest, Backend, BoxFuture, Config, End, ExecRequest, PortForwardRequest, Process, Refusal, Server, Streams,
};

/// Containers of this name do not exist.
pub const ABSENT: &str = "absent";
/// Commands in containers of this name are never started.
pub const STUCK: &str = "stuck";

#[derive(Debug)]
pub struct Host;

fn refuse(container: &str) -> Refusal {
    Refusal { message: format!("container {container} does not exist") }
}

/// A pipe: the end that reads, the end that writes.
fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

fn start(command: &[String], streams: Streams) -> Process {
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Process {
        stdin: None,
        stdout: None,
        stderr: None,
        terminal: None,
        leaves_with_input: false,
        end: Box::pin(async { unreachable!() }),
    };
    if streams.terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        child.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        process.stdin = streams.stdin.then(|| master.try_clone().unwrap());
        process.stdout = streams.stdout.then(|| master.try_clone().unwrap());
        process.terminal = Some(master);
    } else {
        if streams.stdin {
            let (read, write) = pipe();
            child.stdin(read);
            process.stdin = Some(write);
        }
        if streams.stdout {
            let (read, write) = pipe();
            child.stdout(write);
            process.stdout = Some(read);
        }
        if streams.stderr {
            let (read, write) = pipe();
            child.stderr(write);
            process.stderr = Some(read);
        }
    }
    process.end = end(child);
    process
}

fn end(mut command: Command) -> BoxFuture<Result<End, Refusal>> {
    let child = command.spawn();
    Box::pin(async move {
        let failed = |error: std::io::Error| Refusal { message: format!("cannot start the command: {error}") };
        let status = child.map_err(failed)?.wait().await.map_err(failed)?;
        Ok(End::Exited(status.code().unwrap_or_else(|| 128 + status.signal().unwrap())))
    })
}

#[async_trait]
impl Backend for Host {
    async fn exec(&self, request: &ExecRequest) -> Result<Process, Refusal> {
        match request.container.as_str() {
            ABSENT => Err(refuse(ABSENT)),
            STUCK => std::future::pending().await,
            _ => Ok(start(&request.command, request.streams)),
        }
    }

    /// The container's process is a `cat`.
    async fn attach(&self, request: &AttachRequest) -> Result<Process, Refusal> {
        if request.container == ABSENT {
            return Err(refuse(ABSENT));
        }
        let process = start(&["cat".to_owned()], request.streams);
        let end = process.end;
        Ok(Process { end: Box::pin(async move { end.await.map(|_| End::Detached) }), ..process })
    }

    async fn connect(&self, pod: &str, port: u16) -> Result<TcpStream, Refusal> {
        let failed =
            |error: std::io::Error| Refusal { message: format!("cannot reach port {port} of pod {pod}: {error}") };
        let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        stream.into_std().map_err(failed)
    }
}

/// A server that runs.
pub struct World {
    pub server: Arc<Server>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl World {
    pub async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let server = Arc::new(Server::bind(&config, Arc::new(Host)).await.unwrap());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.clone().serve(async {
            let _ = stopped.await;
        }));
        Self { server, stop: Some(stop), serving }
    }

    /// URL of a command of the shell.
    pub fn sh(&self, script: &str, streams: Streams) -> String {
        self.exec(&["sh", "-c", script], streams)
    }

    pub fn exec(&self, command: &[&str], streams: Streams) -> String {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.server.exec_url(ExecRequest { container: "c".into(), command, streams }).unwrap()
    }

    pub fn forward(&self, ports: &[u16]) -> String {
        self.server.port_forward_url(PortForwardRequest { pod: "p".into(), ports: ports.into() }).unwrap()
    }

    /// Sessions that last.
    pub fn active(&self) -> u64 {
        self.server.sessions().iter().map(|sessions| sessions.active).sum()
    }

    /// Stops the server and waits for its end.
    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.serving.await.unwrap();
    }
}

pub const OUT: Streams = Streams { stdin: false, stdout: true, stderr: true, terminal: false };
pub const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, terminal: false };
pub const TERMINAL: Streams = Streams { stdin: true, stdout: true, stderr: false, terminal: true };

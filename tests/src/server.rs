//! A server in a pod's network namespace: each connection gets a program, whose standard streams it is.

use std::{
    env,
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use crate::{eventually, isolation, runner};

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
}

impl Server {
    /// Listens where a process has its network: at each of the addresses for a script of its own.
    pub async fn start(pid: u32, scripts: &[(&str, &str)]) -> Self {
        let lines: Vec<String> = scripts.iter().map(|(address, script)| format!("{address} {script}")).collect();
        let process = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(env::current_exe().expect("this program"))
            .env(isolation::STAGE, "serve")
            .env(runner::NAME, lines.join("\n"))
            .stdin(Stdio::null())
            .spawn()
            .expect("nsenter (Debian: util-linux)");
        let server = Self { process };
        for (address, _) in scripts {
            eventually(address, Duration::from_secs(30), async || server.listens(address).then_some(())).await;
        }
        server
    }

    /// Whether somebody listens at this port there.
    fn listens(&self, address: &str) -> bool {
        let port: u16 = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("an address");
        let listening = format!(":{port:04X} ");
        ["tcp", "tcp6"].iter().any(|table| {
            let text = std::fs::read_to_string(format!("/proc/{}/net/{table}", self.process.id())).unwrap_or_default();
            text.lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.len() > 3 && format!("{} ", fields[1]).ends_with(&listening) && fields[3] == "0A"
            })
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The stage: lines `ADDRESS SCRIPT` are in the environment.
pub(crate) fn serve() -> ExitCode {
    // nsenter became this program: what is killed is the server itself.
    let lines = env::var(runner::NAME).unwrap_or_default();
    let threads: Vec<_> = lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(address, script)| {
            let (address, script) = (address.to_owned(), script.to_owned());
            std::thread::spawn(move || {
                if let Err(error) = accept(&address, &script) {
                    eprintln!("serving {address}: {error}");
                }
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join();
    }
    ExitCode::FAILURE
}

fn accept(address: &str, script: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (stream, _) = listener.accept()?;
        let script = script.to_owned();
        std::thread::spawn(move || {
            if let Err(error) = answer(stream, &script) {
                eprintln!("{script}: {error}");
            }
        });
    }
}

fn answer(stream: TcpStream, script: &str) -> std::io::Result<()> {
    let (input, output): (OwnedFd, OwnedFd) = (stream.try_clone()?.into(), stream.into());
    Command::new("/bin/sh").arg("-c").arg(script).stdin(input).stdout(output).stderr(Stdio::null()).status()?;
    Ok(())
}

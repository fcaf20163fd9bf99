//! client-go's port-forward.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{LIMIT, command, program};
use crate::within;

/// Ports on loopback that lead into a pod.
#[derive(Debug)]
pub struct Forward {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// The ports on loopback, in the order of those that were asked for.
    pub ports: Vec<u16>,
    /// How many WebSockets were refused on the way.
    pub refused: u64,
}

impl Forward {
    /// Listens for these ports of the pod.
    pub async fn start(transport: &str, url: &str, ports: &[u16]) -> Self {
        Self::through("", transport, url, ports).await
    }

    /// The same through a `kubelet`, or through an `apiserver` and a kubelet.
    pub async fn through(path: &str, transport: &str, url: &str, ports: &[u16]) -> Self {
        let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let mut command = command(&program("bin/streamclient"));
        command.arg("forward").arg(format!("-transport={transport}")).arg(format!("-ports={list}"));
        command.arg(format!("-through={path}")).arg(url);
        let mut process = command.stderr(Stdio::inherit()).spawn().expect("start streamclient");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let stdin = process.stdin.take();
        let mut forward = Self { process, stdin, lines, ports: Vec::new(), refused: 0 };
        let first = forward.event().await;
        let found = first["ports"].as_array().unwrap_or_else(|| panic!("forwarding over {transport}: {first}"));
        forward.ports = found.iter().map(|port| u16::try_from(port.as_u64().unwrap()).unwrap()).collect();
        forward.refused = first["refused"].as_u64().unwrap_or(0);
        forward
    }

    /// Connects to one of the ports, by its place in the list.
    pub async fn connect(&self, place: usize) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(("127.0.0.1", self.ports[place])).await.expect("connect to the client")
    }

    /// What the client says next.
    pub async fn event(&mut self) -> Value {
        let line = within("a word of the client", LIMIT, self.lines.next_line()).await;
        serde_json::from_str(&line.expect("read").expect("a line")).expect("JSON")
    }

    /// The next error.
    pub async fn error(&mut self) -> String {
        loop {
            if let Some(error) = self.event().await["error"].as_str() {
                return error.to_owned();
            }
        }
    }

    /// Ends the client politely.
    pub async fn end(mut self) {
        drop(self.stdin.take());
        let status = within("the end of the client", LIMIT, self.process.wait()).await.expect("wait for the client");
        assert!(status.success(), "streamclient: {status}");
    }

    /// Kills it.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("kill the client");
    }
}

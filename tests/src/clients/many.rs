//! client-go with many sessions at once.

use std::process::Stdio;

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::{LIMIT, command, program};
use crate::within;

/// client-go, with many sessions in one process.
#[derive(Debug)]
pub struct Many {
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Many {
    /// Starts the client.
    pub fn start(transport: &str) -> Self {
        let mut command = command(&program("bin/streamclient"));
        // The library has a word for every session that is left.
        command.arg("many").arg(format!("-transport={transport}")).stderr(Stdio::null());
        let mut process = command.spawn().expect("start streamclient");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Self { stdin: process.stdin.take().expect("a pipe"), process, lines }
    }

    /// Opens a session; it is left when the first output comes if `leave`.
    pub async fn open(&mut self, url: &str, leave: bool) {
        let line = format!("{url}{}\n", if leave { " leave" } else { "" });
        self.stdin.write_all(line.as_bytes()).await.expect("the client takes a URL");
    }

    /// The next session that ends.
    pub async fn next(&mut self) -> Value {
        let line = within("the end of a session", LIMIT, self.lines.next_line()).await;
        serde_json::from_str(&line.expect("read").expect("a line")).expect("JSON")
    }

    /// Ends the client.
    pub async fn end(self) {
        let Self { mut process, stdin, .. } = self;
        drop(stdin);
        let status = within("the end of the client", LIMIT, process.wait()).await.expect("wait for the client");
        assert!(status.success(), "streamclient: {status}");
    }
}

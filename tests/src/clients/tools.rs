//! Clients that run to their end: Python's, and crictl.

use std::{path::Path, process::ExitStatus};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use super::{LIMIT, command, program};
use crate::within;

/// Runs Python's client with these arguments and this input: its answer, or what it complained of.
pub async fn python(arguments: &[&str], input: &[u8]) -> Result<Value, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/streamclient.py");
    let mut command = command(&program("python/bin/python"));
    let (status, stdout, stderr) = talk(command.arg(script).args(arguments), input).await;
    if status.success() { Ok(serde_json::from_slice(&stdout).expect("JSON")) } else { Err(stderr) }
}

/// Sends the input to a program and waits for its end: its status, its output, its errors.
async fn talk(command: &mut Command, input: &[u8]) -> (ExitStatus, Vec<u8>, String) {
    let mut process = command.spawn().expect("start a client");
    let mut stdin = process.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let sender = tokio::spawn(async move { stdin.write_all(&input).await.ok() });
    let done = within("a client", LIMIT, process.wait_with_output()).await.expect("wait for a client");
    sender.abort();
    (done.status, done.stdout, String::from_utf8_lossy(&done.stderr).into_owned())
}

/// crictl, with the daemon's socket, ready for its arguments.
pub fn crictl(socket: &Path) -> Command {
    let mut command = command(&program("bin/crictl"));
    command.args(["--config", "/dev/null", "--runtime-endpoint"]).arg(format!("unix://{}", socket.display()));
    command
}

/// Runs crictl to its end: its exit code, its output, its errors.
pub async fn crictl_run(socket: &Path, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let (status, stdout, stderr) = talk(crictl(socket).args(arguments), input).await;
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stdout).into_owned(), stderr)
}

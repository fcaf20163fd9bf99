//! The program under test as a command for people.

use std::{
    env,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::within;

const LIMIT: Duration = Duration::from_secs(60);

/// The program under test, with the node's daemon as its default; without input unless it is given some.
pub fn tripod(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("TRIPOD_BIN").expect("the program under test"));
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end with this input: its exit code, standard output and standard error.
pub async fn with_input(mut command: Command, input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let send = async move {
        // A command that has seen enough does not read the rest.
        let _ = stdin.write_all(input).await;
    };
    let (_, output) = within("a command", LIMIT, async { tokio::join!(send, child.wait_with_output()) }).await;
    let Output { status, stdout, stderr } = output.unwrap();
    (status.code().expect("an exit code"), stdout, String::from_utf8_lossy(&stderr).into_owned())
}

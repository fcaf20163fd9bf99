//! `exec` and `attach`: a session with a command in a container, or with the container's own.

use std::{process::ExitCode, time::Duration};

use tripod_cri_api::v1::{AttachRequest, ContainerState, ContainerStatusRequest, ExecRequest};

use crate::{
    CliError, Client,
    args::{AttachArgs, ExecArgs},
    life,
    stream::{
        keys::DetachKeys,
        session::{self, Ending, Plan},
        status::Verdict,
    },
    terminal,
};

/// Exit code for a program that is not there, as shells have it.
const NO_PROGRAM: u8 = 127;

/// Exit code when `--timeout` is over, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// Exit codes of programs that ended by a signal begin here; SIGPIPE is what a local program would have got.
const SIGNAL: i32 = 128;
const PIPE: i32 = 13;

/// How long the end of a container may take to be visible when its streams have ended.
const END: Duration = Duration::from_secs(10);

/// How often it is asked for.
const ASK: Duration = Duration::from_millis(50);

pub(crate) async fn exec(args: ExecArgs) -> Result<ExitCode, CliError> {
    check_terminal(args.tty, args.interactive)?;
    let mut client = Client::connect(&args.connection.socket).await?;
    let id = client.container(&args.container).await?.id;
    let request = ExecRequest {
        container_id: id.clone(),
        cmd: args.command,
        tty: args.tty,
        stdin: args.interactive,
        stdout: true,
        // A terminal has one output.
        stderr: !args.tty,
    };
    let step = format!("exec in {}", args.container);
    let url = client.runtime.exec(request).await.map_err(CliError::call(step))?.into_inner().url;
    let limit = (args.timeout > 0).then(|| Duration::from_secs(args.timeout.into()));
    let files = &args.streaming;
    let (input, terminal) = (args.interactive, args.tty);
    let plan = Plan { url, files, input, terminal, detach: DetachKeys::default(), limit };
    match session::run(plan).await? {
        Ending::Said(verdict) if verdict.is_no_program() => {
            if let Err(error) = code(verdict, &format!("exec in {}", args.container)) {
                eprintln!("tripod: {error}");
            }
            Ok(ExitCode::from(NO_PROGRAM))
        }
        Ending::Said(verdict) => code(verdict, &format!("exec in {}", args.container)),
        Ending::TimedOut => {
            eprintln!("tripod: the command did not end within {} s", args.timeout);
            Ok(ExitCode::from(TIMED_OUT))
        }
        Ending::Broken(why) => {
            let reason = explain(&mut client, &id, &args.container).await;
            Err(CliError::Stream(format!("exec in {}: the session broke off ({why}): {reason}", args.container)))
        }
        Ending::Detached => Ok(ExitCode::SUCCESS),
        Ending::Signalled(number) => Ok(exit(SIGNAL + number)),
        Ending::OutputClosed => Ok(exit(SIGNAL + PIPE)),
    }
}

pub(crate) async fn attach(args: AttachArgs) -> Result<ExitCode, CliError> {
    check_terminal(args.tty, args.interactive)?;
    let mut client = Client::connect(&args.connection.socket).await?;
    let container = client.container(&args.container).await?;
    let (id, word) = (container.id, args.container.as_str());
    if container.state != i32::from(ContainerState::ContainerRunning) {
        let message = format!("container {word} does not run; `tripod logs {word}` shows what it has said");
        return Err(CliError::Usage(message));
    }
    let made = made_with(&mut client, &id).await?;
    let refuse = |what: &str, flag: &str| {
        Err(CliError::Usage(format!("container {word} was made without {what}: leave {flag} out")))
    };
    match made {
        Some(Made { terminal: false, .. }) if args.tty => return refuse("a terminal", "-t"),
        Some(Made { input: false, .. }) if args.interactive => return refuse("standard input", "-i"),
        _ => {}
    }
    let there = made.map_or(args.tty, |made| made.terminal);
    let here = args.tty || there && args.interactive && terminal::stdin_is_terminal();
    let request =
        AttachRequest { container_id: id.clone(), stdin: args.interactive, tty: there, stdout: true, stderr: !there };
    let step = format!("attach to {word}");
    let url = client.runtime.attach(request).await.map_err(CliError::call(step))?.into_inner().url;
    let detach = if here { args.detach_keys } else { DetachKeys::default() };
    let files = &args.streaming;
    match session::run(Plan { url, files, input: args.interactive, terminal: here, detach, limit: None }).await? {
        Ending::Said(Verdict::Exited(_)) => ended(&mut client, &id, word, None).await,
        Ending::Said(verdict) => code(verdict, &format!("attach to {word}")),
        Ending::Broken(why) => ended(&mut client, &id, word, Some(&why)).await,
        Ending::Detached => {
            eprintln!("tripod: left {word} running; `tripod attach {word}` comes back to it");
            Ok(ExitCode::SUCCESS)
        }
        Ending::Signalled(number) => Ok(exit(SIGNAL + number)),
        Ending::OutputClosed => Ok(exit(SIGNAL + PIPE)),
        Ending::TimedOut => Ok(ExitCode::from(TIMED_OUT)),
    }
}

/// A terminal there is of no use without one here, and typing a program's output into one is worse.
fn check_terminal(wanted: bool, interactive: bool) -> Result<(), CliError> {
    let refuse = |what: &str| Err(CliError::Usage(format!("-t needs a terminal, and {what}: leave -t out")));
    match wanted {
        true if interactive && !terminal::stdin_is_terminal() => refuse("standard input is none"),
        true if !terminal::is_there() => refuse("none of the standard streams is one"),
        _ => Ok(()),
    }
}

fn code(verdict: Verdict, step: &str) -> Result<ExitCode, CliError> {
    match verdict {
        Verdict::Exited(code) => Ok(exit(code)),
        Verdict::Failed(why) => Err(CliError::Stream(format!("{step}: {why}"))),
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// What a container was made with, as far as it concerns whoever attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    terminal: bool,
    input: bool,
}

/// CRI has no field for it; tripod and others tell it among the details for people.
async fn made_with(client: &mut Client, id: &str) -> Result<Option<Made>, CliError> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = client.runtime.container_status(request).await;
    let info = answer.map_err(CliError::call(format!("ask for container {id}")))?.into_inner().info;
    Ok(info.get("info").and_then(|text| made(text)))
}

fn made(info: &str) -> Option<Made> {
    let info: serde_json::Value = serde_json::from_str(info).ok()?;
    let config = info["config"].as_object()?;
    let is_set = |key: &str| config.get(key).and_then(serde_json::Value::as_bool).unwrap_or_default();
    // Ours, and what runtimes say who keep the request as it came.
    Some(Made { terminal: is_set("terminal") || is_set("tty"), input: is_set("stdin") })
}

/// The streams of a container have ended: so has the container, or the session alone.
async fn ended(client: &mut Client, id: &str, word: &str, broken: Option<&str>) -> Result<ExitCode, CliError> {
    let look = async {
        loop {
            match life::status(client, id).await {
                Ok(status) if status.state() == ContainerState::ContainerExited => return Ok(status.exit_code),
                Ok(_) => tokio::time::sleep(ASK).await,
                Err(error) => return Err(error),
            }
        }
    };
    match (tokio::time::timeout(END, look).await, broken) {
        (Ok(Ok(code)), _) => Ok(exit(code)),
        (Err(_), None) => {
            eprintln!("tripod: the session has ended; {word} runs on");
            Ok(ExitCode::SUCCESS)
        }
        (Ok(Err(error)), None) => Err(error),
        (outcome, Some(why)) => {
            let daemon = if outcome.is_err() { "" } else { "; the daemon does not answer" };
            Err(CliError::Stream(format!(
                "attach to {word}: the session broke off ({why}){daemon}. The container runs on: `tripod attach \
                 {word}` comes back to it"
            )))
        }
    }
}

/// Why a session may have broken off.
async fn explain(client: &mut Client, id: &str, word: &str) -> String {
    match tokio::time::timeout(END, life::status(client, id)).await {
        Ok(Ok(status)) if status.state() == ContainerState::ContainerExited => {
            format!("container {word} has ended with exit code {}", status.exit_code)
        }
        Ok(Ok(_)) => "the daemon ended it, or was restarted; the command may still run".to_owned(),
        Ok(Err(CliError::Call { status, .. })) if status.code() == tonic::Code::NotFound => {
            format!("container {word} was removed")
        }
        _ => "the daemon does not answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Made, made};

    #[test]
    fn details_tell_what_a_container_was_made_with() {
        let info = r#"{"pid":7,"config":{"tty":true,"metadata":{"name":"web"}}}"#;
        assert_eq!(made(info), Some(Made { terminal: true, input: false }));
        assert_eq!(made(r#"{"config":{"stdin":true,"tty":false}}"#), Some(Made { terminal: false, input: true }));
        let ours = r#"{"config":{"stdin":true,"stdin_once":false,"terminal":true}}"#;
        assert_eq!(made(ours), Some(Made { terminal: true, input: true }));
        assert_eq!(made(r#"{"pid":7}"#), None);
        assert_eq!(made("no JSON"), None);
    }
}

//! A command under test: a child of the test, which is this program again.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::Parser;
use rustix::{
    process::{Pid, Signal, ioctl_tiocsctty, kill_process, setsid},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use tripod_cli::{Embed, Embedded, Local};

/// What this program is to be: `command`, or `terminal` and then the command.
const STAGE: &str = "TRIPOD_CLI_IT_STAGE";
/// Path of the terminal.
const TERMINAL: &str = "TRIPOD_CLI_IT_TERMINAL";

/// Longest wait for something at a terminal, and for the end of a command.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
#[command(name = "tripod")]
struct CommandLine {
    #[command(subcommand)]
    command: tripod_cli::Command,
}

/// No daemon for the time of a command here.
#[derive(Debug)]
struct Alone;

#[async_trait::async_trait]
impl Embed for Alone {
    async fn start(&self, _: Local) -> Result<Box<dyn Embedded>, Box<dyn std::error::Error + Send + Sync>> {
        Err("there is none here".into())
    }

    async fn store(&self, _: Local) -> Result<Box<dyn Embedded>, Box<dyn std::error::Error + Send + Sync>> {
        Err("there is none here".into())
    }
}

/// Plays the part that the environment asks for.
pub(crate) fn stage() -> Option<ExitCode> {
    match env::var(STAGE).ok()?.as_str() {
        "terminal" => become_owner_of_the_terminal(),
        _ => Some(run()),
    }
}

fn run() -> ExitCode {
    let command = CommandLine::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(tripod_cli::run(command, &Alone)).unwrap_or_else(|error| {
        eprintln!("tripod: {error}");
        ExitCode::from(125)
    })
}

/// A terminal belongs to the session whose leader opens it.
fn become_owner_of_the_terminal() -> ! {
    setsid().unwrap();
    let terminal = OpenOptions::new().read(true).write(true).open(env::var_os(TERMINAL).unwrap()).unwrap();
    ioctl_tiocsctty(&terminal).unwrap();
    rustix::stdio::dup2_stdin(&terminal).unwrap();
    rustix::stdio::dup2_stdout(&terminal).unwrap();
    rustix::stdio::dup2_stderr(&terminal).unwrap();
    drop(terminal);
    let error = Command::new(env::current_exe().unwrap()).args(env::args_os().skip(1)).env(STAGE, "command").exec();
    panic!("become the command: {error}");
}

/// The program with arguments, to be run against a socket.
pub(crate) fn tripod(socket: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(arguments).env(STAGE, "command").env("TRIPOD_SOCKET", socket);
    for name in ["CA", "CERT", "KEY"] {
        command.env_remove(format!("TRIPOD_STREAMING_{name}"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end with all of its input.
pub(crate) async fn outcome(mut command: Command, input: &'static [u8]) -> Output {
    tokio::task::spawn_blocking(move || {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || drop(stdin.write_all(input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    })
    .await
    .unwrap()
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A command at a terminal, and the person before it.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: File,
    /// Keeps the terminal in being when the command has ended, for a look at its modes.
    slave: OwnedFd,
    child: Child,
    /// Its modes before the command was started.
    pub(crate) before: String,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command at a new terminal.
    pub(crate) fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).custom_flags_noctty().open(&path).unwrap();
        resize(&master, columns, rows);
        let before = modes(&slave);
        command.env(STAGE, "terminal").env(TERMINAL, &path);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, seen) = (master.try_clone().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { master, slave: slave.into(), child, before, shown }
    }

    /// The modes of the terminal, as text to compare.
    pub(crate) fn modes(&self) -> String {
        modes(&self.slave)
    }

    /// Types.
    pub(crate) fn type_keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    /// Changes the size of the window.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        resize(&self.master, columns, rows);
    }

    /// All that was shown.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until a text was shown.
    pub(crate) async fn sees(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.shown().contains(text) {
            assert!(Instant::now() < until, "{text:?} was not shown, but {:?}", self.shown());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends the command a signal.
    pub(crate) fn signal(&self, number: Signal) {
        signal(&self.child, number);
    }

    /// Waits for the end of the command: its exit code, or the signal that ended it as a negative number.
    pub(crate) async fn ends(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return code(status);
            }
            assert!(Instant::now() < until, "the command did not end; it showed {:?}", self.shown());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap())
}

fn modes(terminal: impl AsFd) -> String {
    let modes: Termios = tcgetattr(terminal).unwrap();
    format!("{:?} {:?} {:?}", modes.input_modes, modes.output_modes, modes.local_modes)
}

fn resize(terminal: impl AsFd, columns: u16, rows: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

/// A terminal must not become the test's own.
trait NoTerminalOfOurs {
    fn custom_flags_noctty(&mut self) -> &mut Self;
}

impl NoTerminalOfOurs for OpenOptions {
    fn custom_flags_noctty(&mut self) -> &mut Self {
        use std::os::unix::fs::OpenOptionsExt;
        self.custom_flags(rustix::fs::OFlags::NOCTTY.bits().cast_signed())
    }
}

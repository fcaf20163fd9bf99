//! Clients for streaming URLs that nobody here wrote: client-go, Python's `kubernetes`, and crictl.
//!
//! `critest/build cri clients` makes them from their pins; nothing is fetched when a test runs.

mod forward;
mod many;
mod tools;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};

pub use self::{
    forward::Forward,
    many::Many,
    tools::{crictl, crictl_run, python},
};
use crate::{Wanted, peer, runner, within};

/// Where the clients are, if not where `critest/build` puts them.
const PLACE: &str = "TRIPOD_CLIENTS";

/// Longest time of a session that is told nothing else.
const LIMIT: Duration = Duration::from_secs(120);

/// Every way in which client-go comes to the daemon.
pub fn transports() -> &'static [&'static str] {
    // Peers of today have no v5 over WebSocket, which is all that client-go speaks there.
    if peer::chosen() { &["spdy", "fallback"] } else { &["spdy", "websocket", "fallback"] }
}

/// A program of the clients' folder.
fn program(name: &str) -> PathBuf {
    let place = env::var_os(PLACE)
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../critest/.build").into(), PathBuf::from);
    let path = place.join(name);
    assert!(path.exists(), "no {}: run critest/build cri clients", path.display());
    path
}

/// A file name of the test's own.
fn fresh(kind: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = PathBuf::from(env::var_os(runner::FOLDER).expect("the folder of a test"));
    folder.join(format!("{kind}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// A client without surroundings: no proxy of the machine's owner, no settings.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent").env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// client-go's remotecommand, before it has a URL.
#[derive(Debug, Clone)]
pub struct Client {
    flags: Vec<String>,
    wanted: Wanted,
    input: Option<PathBuf>,
}

impl Client {
    /// Over `spdy`, over `websocket`, or with the `fallback` of kubectl from the one that is refused to the other.
    pub fn new(transport: &str, wanted: Wanted) -> Self {
        let mut flags = vec![format!("-transport={transport}")];
        flags.push(format!("-stdin={}", wanted.stdin));
        flags.push(format!("-stdout={}", wanted.stdout));
        flags.push(format!("-stderr={}", wanted.stderr));
        flags.push(format!("-tty={}", wanted.tty));
        Self { flags, wanted, input: None }
    }

    /// Offers only this version of the protocol.
    #[must_use]
    pub fn protocol(mut self, name: &str) -> Self {
        self.flags.push(format!("-protocols={name}"));
        self
    }

    /// Goes through a `kubelet`, or through an `apiserver` and a kubelet, as Kubernetes passes sessions on.
    #[must_use]
    pub fn through(mut self, path: &str) -> Self {
        self.flags.push(format!("-through={path}"));
        self
    }

    /// Trusts the authority of `ca.pem` in a folder, and shows `client.pem` and `client.key` of it if `known`.
    #[must_use]
    pub fn tls(mut self, folder: &Path, known: bool) -> Self {
        self.flags.push(format!("-ca={}", folder.join("ca.pem").display()));
        if known {
            self.flags.push(format!("-cert={}", folder.join("client.pem").display()));
            self.flags.push(format!("-key={}", folder.join("client.key").display()));
        }
        self
    }

    /// Counts and hashes what comes instead of showing it.
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.flags.push("-count".to_owned());
        self
    }

    /// Reads the sizes of the terminal from here.
    #[must_use]
    pub fn sizes(mut self, sizes: &Sizes) -> Self {
        self.flags.push(format!("-sizes={}", sizes.path.display()));
        self
    }

    /// Sends a file instead of what the test writes.
    #[must_use]
    pub fn input(mut self, file: &Path) -> Self {
        self.input = Some(file.to_owned());
        self
    }

    /// Goes to a URL.
    pub fn start(self, url: &str) -> Session {
        let result = fresh("session");
        let mut command = command(&program("bin/streamclient"));
        command.arg("session").args(&self.flags).arg("-result").arg(&result).arg(url);
        if let Some(input) = &self.input {
            command.stdin(fs::File::open(input).expect("open the input"));
        } else if !self.wanted.stdin {
            command.stdin(Stdio::null());
        }
        let mut process = command.spawn().expect("start streamclient");
        let stderr = gather(process.stderr.take().expect("a pipe"));
        Session {
            stdin: process.stdin.take(),
            stdout: process.stdout.take().expect("a pipe"),
            stderr,
            seen: Vec::new(),
            process,
            result,
        }
    }

    /// Goes to a URL, sends this, half-closes, and waits for the end.
    pub async fn run(self, url: &str, input: &[u8]) -> Outcome {
        let mut session = self.start(url);
        let sender = session.stdin.take().map(|mut stdin| {
            let input = input.to_vec();
            // A command that has ended does not take the rest.
            tokio::spawn(async move { stdin.write_all(&input).await.ok() })
        });
        let outcome = session.end().await;
        drop(sender);
        outcome
    }
}

fn gather(mut stderr: ChildStderr) -> JoinHandle<Vec<u8>> {
    tokio::spawn(async move {
        let mut all = Vec::new();
        let _ = stderr.read_to_end(&mut all).await;
        all
    })
}

/// A running session.
#[derive(Debug)]
pub struct Session {
    process: Child,
    /// What goes to the command; dropping it is the half-close.
    pub stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: JoinHandle<Vec<u8>>,
    seen: Vec<u8>,
    result: PathBuf,
}

/// What a session ended with.
#[derive(Debug)]
pub struct Outcome {
    /// What the command ended with; -1 if nobody said.
    pub code: i64,
    /// What the client says of the end; empty after success.
    pub error: String,
    /// How many WebSockets were refused on the way.
    pub refused: u64,
    /// The output.
    pub stdout: Vec<u8>,
    /// The errors.
    pub stderr: Vec<u8>,
    /// Length of the output.
    pub bytes: u64,
    /// Its digest in hexadecimal digits.
    pub sha256: String,
}

impl Outcome {
    /// The output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Session {
    /// The client's process.
    pub fn pid(&self) -> u32 {
        self.process.id().expect("the client runs")
    }

    /// Sends text.
    pub async fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        within("writing", LIMIT, stdin.write_all(text.as_bytes())).await.expect("the client takes it");
    }

    /// Reads until the whole output so far has the text, and gives that output.
    pub async fn read_until(&mut self, text: &str) -> String {
        let wanted = text.as_bytes();
        let reading = async {
            let mut buffer = vec![0; 1 << 16];
            while !self.seen.windows(wanted.len()).any(|part| part == wanted) {
                let length = self.stdout.read(&mut buffer).await.expect("read the output");
                let so_far = String::from_utf8_lossy(&self.seen).into_owned();
                assert!(length > 0, "the output ended without {text:?}: {so_far:?}");
                self.seen.extend(&buffer[..length]);
            }
        };
        within(&format!("output with {text:?}"), Duration::from_secs(60), reading).await;
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Forgets the output so far.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// Half-closes and waits for the end.
    pub async fn end(mut self) -> Outcome {
        drop(self.stdin.take());
        self.ended().await
    }

    /// Waits for the end.
    pub async fn ended(mut self) -> Outcome {
        let ending = async {
            self.stdout.read_to_end(&mut self.seen).await.expect("read the output");
            self.process.wait().await.expect("wait for the client")
        };
        let status = within("a session", LIMIT, ending).await;
        let stderr = (&mut self.stderr).await.expect("the errors");
        let complaint = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "streamclient: {status}: {complaint}");
        let result: Value =
            serde_json::from_slice(&fs::read(&self.result).expect("the outcome")).expect("the outcome as JSON");
        Outcome {
            code: result["code"].as_i64().expect("a code"),
            error: result["error"].as_str().expect("an error").to_owned(),
            refused: result["refused"].as_u64().expect("a number"),
            bytes: result["stdout"]["bytes"].as_u64().unwrap_or(0),
            sha256: result["stdout"]["sha256"].as_str().unwrap_or_default().to_owned(),
            stdout: std::mem::take(&mut self.seen),
            stderr,
        }
    }

    /// Kills the client with SIGKILL, as a machine does that loses its power, but for the kernel's farewell.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("kill the client");
    }
}

/// The sizes of a client's terminal, told as it changes.
#[derive(Debug)]
pub struct Sizes {
    path: PathBuf,
    file: fs::File,
}

impl Default for Sizes {
    fn default() -> Self {
        let path = fresh("sizes");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("make a FIFO");
        // For reading too: opening does not wait for the client then.
        let file = fs::File::options().read(true).write(true).open(&path).expect("open the FIFO");
        Self { path, file }
    }
}

impl Sizes {
    /// The terminal is this large now.
    pub fn set(&self, columns: u16, rows: u16) {
        use std::io::Write;
        writeln!(&self.file, "{columns} {rows}").expect("tell the size");
    }
}

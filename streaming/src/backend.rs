//! What the streaming server needs from the rest of the daemon.

use std::{fmt, net::TcpStream, os::fd::OwnedFd, pin::Pin};

use async_trait::async_trait;

/// A future that is owned.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Which streams a client wants. With a terminal there is no standard error of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal.
    pub terminal: bool,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Container ID.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// What the client wants to be connected to.
    pub streams: Streams,
}

/// A container whose first process a client wants to be connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Container ID.
    pub container: String,
    /// What the client wants to be connected to.
    pub streams: Streams,
}

/// A pod whose ports a client wants to reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// Pod sandbox ID.
    pub pod: String,
    /// Ports named in advance, in the order of their channels; needed by WebSocket clients only.
    pub ports: Vec<u16>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code; 128 + n after signal n.
    Exited(i32),
    /// The container that a client was attached to has ended.
    Detached,
}

/// A process and the daemon's ends of its streams. All descriptors may be pipes, terminals or sockets; whoever gets
/// them makes them non-blocking.
pub struct Process {
    /// Closing it ends the process's input.
    pub stdin: Option<OwnedFd>,
    /// Standard output, or all that a terminal shows.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
    /// The master of the terminal, to tell it the size of the client's window.
    pub terminal: Option<OwnedFd>,
    /// A client that ends its input takes its leave: an attachment to a container whose input stays open for the next.
    pub leaves_with_input: bool,
    /// The end. What was written before is in `stdout` and `stderr` then, though others may still hold their other
    /// ends: nobody waits for those. Dropped early, nobody cares for the process any more, and the backend sees to it.
    pub end: BoxFuture<Result<End, Refusal>>,
}

/// Why the backend does not do what a client wants; the text says what was tried, on which object, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For people.
    pub message: String,
}

/// Gives processes and connections to clients who came with a valid URL.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Starts a command.
    async fn exec(&self, request: &ExecRequest) -> Result<Process, Refusal>;

    /// Connects to a container's first process; its output comes from now on.
    async fn attach(&self, request: &AttachRequest) -> Result<Process, Refusal>;

    /// Connects to a port on the loopback of a pod.
    async fn connect(&self, pod: &str, port: u16) -> Result<TcpStream, Refusal>;
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

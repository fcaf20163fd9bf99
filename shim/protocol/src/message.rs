//! Requests, replies and events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ExecPlan, HookedPlan, LaunchPlan, OciPlan, PodPlan, UserPlan};

/// Pairs a reply with its request; chosen by the daemon, unique on a connection.
pub type RequestId = u64;

/// What the daemon sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToShim {
    /// Comes back in the reply.
    pub id: RequestId,
    /// What to do.
    pub request: Request,
}

/// What the shim sends: a reply to a request, or an event at any time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromShim {
    /// Outcome of a request. File descriptors named by the reply travel with it.
    Reply {
        /// The request's.
        id: RequestId,
        /// What came of it.
        result: Result<Reply, Failure>,
    },
    /// Something happened. Sent to every connection.
    Event(Event),
}

/// Requests to the shim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make the pod's user namespace, and in it what the plan says. Comes before [`Request::Setup`]; asked for again, it
    /// gives what there is. Answered by [`Reply::UserNamespace`].
    UserNamespace(UserPlan),
    /// Enter the pod's namespaces. The first request of a shim's life, but for the one above. Answered by [`Reply::Ready`].
    /// File descriptors: none, or an empty mount namespace (`tripod_sys::root::empty_namespace`) with which containers'
    /// namespaces begin. All shims may be given the same one; a shim that gets none makes its own, which takes time on
    /// hosts with many mounts.
    Setup(Box<PodPlan>),
    /// Start a container. File descriptors: the rootfs, then those that [`crate::MountSource::Detached`] names.
    /// Answered by [`Reply::Started`] once the program has been executed.
    Launch(Box<LaunchPlan>),
    /// The same with hooks, which a shim that does not know them must not leave out. After the descriptors of
    /// [`Request::Launch`] come those of the network, IPC and UTS namespaces in which hooks of the runtime's run.
    /// Answered by [`Reply::Started`] once the hooks after the start have run, too.
    LaunchHooked(Box<HookedPlan>),
    /// Start a container through an OCI runtime. File descriptors as with [`Request::Launch`].
    /// Answered by [`Reply::Started`] once the runtime says that it was started.
    LaunchOci(Box<OciPlan>),
    /// Start a process in a running container. File descriptors: standard input, output and error, all three;
    /// with a terminal none are sent and the reply carries the terminal's master.
    /// Answered by [`Reply::Started`]; its end is [`Event::ExecExited`].
    Exec(Box<ExecPlan>),
    /// Send a signal to a container's first process. A start that hangs is ended by signal 9.
    Signal {
        /// Container ID.
        container: String,
        /// Signal number.
        signal: i32,
    },
    /// Kill an exec and all its descendants with SIGKILL.
    KillExec {
        /// Its name.
        exec: String,
    },
    /// Open the log file anew, after it was renamed.
    ReopenLog {
        /// Container ID.
        container: String,
    },
    /// Connect to the first process of a running container. Answered by [`Reply::Attached`].
    Attach {
        /// Container ID.
        container: String,
        /// Wants its standard input.
        stdin: bool,
        /// Wants what it writes to standard output from now on, or to its terminal.
        stdout: bool,
        /// Wants what it writes to standard error from now on.
        stderr: bool,
    },
    /// A TCP socket, not connected, in the pod's network namespace. Answered by [`Reply::Socket`].
    Socket {
        /// For IPv6 addresses; otherwise for IPv4.
        ipv6: bool,
    },
    /// What runs here and what has ended. Answered by [`Reply::Report`].
    List,
    /// The exit record was stored: forget the container.
    Forget {
        /// Container ID.
        container: String,
    },
    /// Kill what still runs and end. Answered by [`Reply::Done`] when nothing runs and all exit records are written;
    /// the shim is gone a moment later.
    Shutdown,
}

/// Good outcomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Done,
    /// The shim holds the pod.
    Ready {
        /// The shim's PID on the host.
        pid: i32,
        /// Protocol version that the shim speaks.
        version: u32,
    },
    /// A process runs.
    Started {
        /// Its PID on the host.
        pid: i32,
        /// When the program was executed: nanoseconds since the epoch.
        started_at: i64,
        /// How long each step of the start took, in microseconds, by name of the step.
        #[serde(default)]
        stages: BTreeMap<String, u64>,
    },
    /// The pod's user namespace, then its network namespace where it has one of its own, as file descriptors.
    UserNamespace,
    /// The daemon's ends of a container's streams, those that are true, in this order, as file descriptors. Closing
    /// them ends the attachment. Whoever reads too slowly misses output and is told so in it; nobody waits for him.
    Attached {
        /// A pipe, or the terminal's master. The container sees the end of its input when this one is closed if its
        /// plan says [`crate::LaunchPlan::stdin_once`], and then nobody gets it a second time.
        stdin: bool,
        /// A pipe.
        stdout: bool,
        /// A pipe.
        stderr: bool,
        /// The terminal's master, if there is a terminal: for its size.
        terminal: bool,
    },
    /// The socket that was asked for, as a file descriptor; it does not block.
    Socket,
    /// All containers that the shim knows.
    Report {
        /// Protocol version that the shim speaks.
        #[serde(default = "crate::version::first")]
        version: u32,
        /// By container ID.
        containers: BTreeMap<String, ContainerReport>,
    },
}

/// State of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerReport {
    /// Its start is under way; it will run, or be unknown again if the start fails.
    Starting {
        /// PID on the host.
        pid: i32,
    },
    /// It runs.
    Running {
        /// PID on the host.
        pid: i32,
        /// Nanoseconds since the epoch.
        started_at: i64,
    },
    /// It has ended, and the record was not yet acknowledged by [`Request::Forget`].
    Exited(ExitRecord),
}

/// How a container ended. Written to `DIR/exits/CONTAINER` (JSON) before the event is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Nanoseconds since the epoch; never before `started_at`.
    pub started_at: i64,
    /// Nanoseconds since the epoch, when the first process ended.
    pub finished_at: i64,
    /// Bytes of output that could not be written to the log.
    #[serde(default)]
    pub log_bytes_lost: u64,
}

/// What happens by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A container ended and its log is complete.
    Exited {
        /// Container ID.
        container: String,
        /// How.
        record: ExitRecord,
    },
    /// An exec ended.
    ExecExited {
        /// Its name.
        exec: String,
        /// Exit code; 128 + n after signal n.
        code: i32,
    },
}

/// A request that failed; nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {message}")]
pub struct Failure {
    /// What was being done, and on what: `mount /proc`.
    pub step: String,
    /// Why it failed.
    pub message: String,
    /// What the daemon makes of it.
    pub kind: FailureKind,
}

/// Kinds of failure that the daemon tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No such container or exec.
    NotFound,
    /// The container does not run (exec, signal, log of a stopped container).
    NotRunning,
    /// A container or exec of this name exists.
    Exists,
    /// The program does not exist in the container or cannot be executed; the user's to mend.
    Program,
    /// Something in the plan cannot be done: a mount source is missing, a path cannot be made.
    Plan,
    /// Anything else.
    Internal,
}

//! The filter for the program's system calls: the last thing before execve, so that nothing of ours runs under it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::net::{SendFlags, send, sockopt};
use serde::Serialize;
use tripod_shim_protocol::{Failure, ProcessPlan, SeccompFilter, SeccompListener};
use tripod_sys::{scm, seccomp};

use crate::fault::Blame;

/// How long a listener may take to accept a connection and to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// The version of the OCI runtime specification that says what is sent.
const OCI_VERSION: &str = "1.2.0";

/// The way to the program that decides about calls, opened while the host is in sight.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixStream,
    message: Vec<u8>,
}

/// `ContainerProcessState` of the OCI runtime specification.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    metadata: &'a str,
    state: State<'a>,
}

/// `State` of the same.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    pid: i32,
    bundle: &'a Path,
    annotations: &'a BTreeMap<String, String>,
}

/// Connects to the listener, if the filter has one. `first` is the PID of the container's first process on the host,
/// where this is not it.
pub(super) fn listener(process: &ProcessPlan, first: Option<i32>) -> Result<Option<Listener>, Failure> {
    let Some(plan) = process.seccomp.as_ref().and_then(|filter| filter.listener.as_deref()) else { return Ok(None) };
    let step = || format!("connect to the seccomp listener {}", plan.path.display());
    let connect = || {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(&plan.path)?)?;
        io::Result::Ok(UnixStream::from(socket))
    };
    let socket = connect().plan(step)?;
    let pid = own_pid().internal(|| "read the own PID".into())?;
    let message = message(plan, pid, first).internal(step)?;
    Ok(Some(Listener { socket, message }))
}

/// As the host counts: its procfs is still there.
fn own_pid() -> io::Result<i32> {
    let link = fs::read_link("/proc/self")?;
    link.to_str().and_then(|pid| pid.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn message(plan: &SeccompListener, pid: i32, first: Option<i32>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&ProcessState {
        oci_version: OCI_VERSION,
        fds: ["seccompFd"],
        pid,
        metadata: &plan.metadata,
        state: State {
            oci_version: OCI_VERSION,
            id: &plan.container,
            status: if first.is_some() { "running" } else { "creating" },
            pid: first.unwrap_or(pid),
            // There is none.
            bundle: Path::new(""),
            annotations: &plan.annotations,
        },
    })
}

/// Confines the calling process. Takes no_new_privs or CAP_SYS_ADMIN.
pub(super) fn load(filter: &SeccompFilter, listener: Option<&(BorrowedFd<'_>, Vec<u8>)>) -> Result<(), Failure> {
    let flags = seccomp::Flags {
        log: filter.log,
        spec_allow: filter.spec_allow,
        wait_killable: filter.wait_killable,
        listener: listener.is_some(),
    };
    let fd = seccomp::load(&filter.program, flags).internal(|| "load the seccomp filter".into())?;
    match (listener, fd) {
        (Some((socket, message)), Some(fd)) => {
            tell(*socket, message, &fd).plan(|| "hand the seccomp descriptor to its listener".into())
        }
        _ => Ok(()),
    }
}

fn tell(socket: BorrowedFd<'_>, message: &[u8], fd: &OwnedFd) -> io::Result<()> {
    let mut sent = scm::send(socket, message, &[fd.as_fd()])?;
    while sent < message.len() {
        sent += send(socket, &message[sent..], SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

// === impl Listener ===

impl Listener {
    /// Says that the calling process is the container's first one. The host's procfs must be in sight.
    pub(super) fn name_caller(&mut self, process: &ProcessPlan) -> Result<(), Failure> {
        let Some(plan) = process.seccomp.as_ref().and_then(|filter| filter.listener.as_deref()) else { return Ok(()) };
        let step = || "name the process to the seccomp listener".to_owned();
        self.message = message(plan, own_pid().internal(step)?, None).internal(step)?;
        Ok(())
    }

    /// The socket and what to say on it.
    pub(super) fn into_parts(self) -> (OwnedFd, Vec<u8>) {
        (self.socket.into(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_hears_who_it_decides_about() {
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let plan = SeccompListener { metadata: "m".into(), container: "c".into(), annotations, ..Default::default() };
        let said = |first| String::from_utf8(message(&plan, 7, first).unwrap()).unwrap();
        assert_eq!(
            said(None),
            r#"{"ociVersion":"1.2.0","fds":["seccompFd"],"pid":7,"metadata":"m","state":{"ociVersion":"1.2.0","id":"c","status":"creating","pid":7,"bundle":"","annotations":{"a":"b"}}}"#
        );
        assert!(said(Some(3)).contains(r#""status":"running","pid":3"#));
    }
}

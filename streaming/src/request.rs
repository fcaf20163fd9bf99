//! What a URL stands for.

use crate::{AttachRequest, ExecRequest, PortForwardRequest, Streams};

/// A request that waits for its client.
#[derive(Debug)]
pub(crate) enum Request {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exec,
    Attach,
    PortForward,
}

impl Kind {
    /// Its part in URLs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }
}

impl Request {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Exec(_) => Kind::Exec,
            Self::Attach(_) => Kind::Attach,
            Self::PortForward(_) => Kind::PortForward,
        }
    }

    /// What makes no sense in a request.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Exec(request) if request.container.is_empty() => Some("the request names no container"),
            Self::Exec(request) if request.command.is_empty() => Some("the request names no command"),
            Self::Exec(request) => streams_fault(request.streams),
            Self::Attach(request) if request.container.is_empty() => Some("the request names no container"),
            Self::Attach(request) => streams_fault(request.streams),
            Self::PortForward(request) if request.pod.is_empty() => Some("the request names no pod sandbox"),
            Self::PortForward(request) if request.ports.contains(&0) => Some("the request names the port 0"),
            Self::PortForward(_) => None,
        }
    }
}

fn streams_fault(streams: Streams) -> Option<&'static str> {
    let Streams { stdin, stdout, stderr, terminal } = streams;
    match () {
        () if terminal && stderr => Some("tty and stderr cannot both be true: a terminal has one output"),
        () if !(stdin || stdout || stderr) => Some("one of stdin, stdout and stderr must be true"),
        () => None,
    }
}

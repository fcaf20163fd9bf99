//! Connecting clients to containers, and daemons to the pod's network.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tripod_shim_protocol::{Failure, FailureKind, Reply};

use crate::{
    containers::Container,
    fault::{Blame, failure},
    log::Stream,
    pod,
    poll::{Poll, Source, Token},
    shim::Shim,
    viewer::{self, Viewer},
};

/// The shim's hold on a container's standard input.
#[derive(Debug)]
pub(crate) enum Stdin {
    /// There is none, or it was handed out for good.
    None,
    /// The writing end of its pipe.
    Pipe(OwnedFd),
    /// The terminal, whose master is held by the output.
    Terminal,
}

/// Which streams a client wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

// === impl Shim ===

impl Shim {
    /// Connects a client to a container: the answer and the descriptors that travel with it.
    pub(crate) fn attach(&mut self, id: &str, wanted: Wanted) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        let step = || format!("attach to container {id}");
        self.running(id)?;
        let Some(container) = self.containers.get_mut(id) else {
            return Err(failure(FailureKind::NotFound, step(), "no such container"));
        };
        let terminal = container.terminal_master().internal(step)?;
        // The input comes last: what follows cannot fail any more, and it may be the only one that there is.
        let stdout = view(container, id, Stream::Stdout, wanted.stdout, &mut self.poll).internal(step)?;
        let stderr = view(container, id, Stream::Stderr, wanted.stderr, &mut self.poll).internal(step)?;
        let stdin = if wanted.stdin { container.take_stdin().internal(step)? } else { None };
        let reply = Reply::Attached {
            stdin: stdin.is_some(),
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
            terminal: terminal.is_some(),
        };
        Ok((reply, [stdin, stdout, stderr, terminal].into_iter().flatten().collect()))
    }

    /// Whoever was attached with this token has gone.
    pub(crate) fn on_viewer(&mut self, id: &str, stream: Stream, token: Token) {
        let output = self.containers.get_mut(id).and_then(|container| container.output(stream));
        if let Some(output) = output {
            output.forget_viewer(token, &mut self.poll);
        }
    }

    /// A socket in the pod's network namespace, which is the shim's own.
    pub(crate) fn socket(&self, ipv6: bool) -> Result<(Reply, Vec<OwnedFd>), Failure> {
        self.pod.as_ref().ok_or_else(pod::not_set_up)?;
        let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
        Ok((Reply::Socket, vec![socket.internal(|| "make a socket in the pod's network".into())?]))
    }
}

/// A new viewer of an output, if it is wanted and the container has not closed it.
fn view(
    container: &mut Container,
    id: &str,
    stream: Stream,
    wanted: bool,
    poll: &mut Poll,
) -> io::Result<Option<OwnedFd>> {
    let Some(output) = container.output(stream).filter(|_| wanted) else { return Ok(None) };
    let (read, write) = viewer::pipe()?;
    let token = poll.add_until_unread(&write, Source::Viewer(id.to_owned(), stream))?;
    output.viewers.push(Viewer::new(token, write));
    Ok(Some(read))
}

// === impl Container ===

impl Container {
    fn terminal_master(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.terminal.is_none() {
            return Ok(None);
        }
        self.output(Stream::Stdout).map(|output| output.duplicate()).transpose()
    }

    /// A descriptor for standard input. With `stdin_once` it is the only one: its end is the end of the input.
    fn take_stdin(&mut self) -> io::Result<Option<OwnedFd>> {
        let stdin = match &self.stdin {
            Stdin::None => return Ok(None),
            Stdin::Terminal => self.terminal_master()?,
            Stdin::Pipe(_) if self.stdin_once => match std::mem::replace(&mut self.stdin, Stdin::None) {
                Stdin::Pipe(fd) => Some(fd),
                _ => None,
            },
            Stdin::Pipe(fd) => Some(fd.as_fd().try_clone_to_owned()?),
        };
        if self.stdin_once {
            self.stdin = Stdin::None;
        }
        Ok(stdin)
    }
}

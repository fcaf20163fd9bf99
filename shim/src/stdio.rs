//! What a container's first process has for standard input, output and error, and the shim's ends of that.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
};
use tripod_shim_protocol::LaunchPlan;

use crate::{attach::Stdin, child::Stdio, log::Stream};

/// The shim's ends of a container's standard input, output and error.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: Stdin,
    pub(crate) outputs: Vec<(Stream, OwnedFd)>,
}

/// Makes pipes for a container, or nothing if it is to have a terminal. The child's ends come first.
pub(crate) fn stdio(plan: &LaunchPlan) -> io::Result<(Stdio, Ends)> {
    if plan.process.terminal {
        return Ok((Stdio::Terminal, terminal_ends(plan)));
    }
    pipes(plan).map(|(fds, ends)| (Stdio::Fds(fds), ends))
}

fn terminal_ends(plan: &LaunchPlan) -> Ends {
    Ends { stdin: if plan.stdin { Stdin::Terminal } else { Stdin::None }, outputs: Vec::new() }
}

/// Pipes for a container's standard streams; `/dev/null` where it is to have a terminal.
pub(crate) fn pipes(plan: &LaunchPlan) -> io::Result<([OwnedFd; 3], Ends)> {
    let null = || io::Result::Ok(OwnedFd::from(File::open("/dev/null")?));
    if plan.process.terminal {
        return Ok(([null()?, null()?, null()?], terminal_ends(plan)));
    }
    let (stdin, keep) = if plan.stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        (read, Stdin::Pipe(write))
    } else {
        (null()?, Stdin::None)
    };
    let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    nonblocking(&out)?;
    nonblocking(&err)?;
    let ends = Ends { stdin: keep, outputs: vec![(Stream::Stdout, out), (Stream::Stderr, err)] };
    Ok(([stdin, stdout, stderr], ends))
}

pub(crate) fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(fd, rustix::fs::fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}

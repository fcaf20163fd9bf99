//! PID 1 of a shared PID namespace: adopts orphans and buries them.
//!
//! The containers of the pod see this process, so it has nothing to offer: no rights, no files, an empty root.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::{PipeFlags, pipe_with},
    process::{DumpableBehavior, Pid, PidfdFlags, WaitOptions, pidfd_open, set_dumpable_behavior, wait},
    thread::{UnshareFlags, set_no_new_privs},
};
use tripod_sys::{
    caps::{self, Sets},
    exec, fork, namespace, root,
    signal::ChildSignals,
};

use crate::user::{self, UserNamespace};

const READY: &str = "ready";

/// Starts it and waits until it has confined itself, in a copy of the mount namespace `empty`.
pub(crate) fn start(empty: &OwnedFd, user: Option<&UserNamespace>) -> io::Result<fork::Child> {
    let (ready, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = match user {
        None => {
            let enter = || root::enter(empty).and_then(|()| namespace::unshare(UnshareFlags::NEWNS));
            fork::spawn(fork::NEW_PID, None, move || run(enter, tell))?
        }
        Some(user) => by_heir(empty, user, tell)?,
    };
    let mut word = [0; 256];
    // It says one thing and does nothing that could block, so that this read ends.
    let n = rustix::io::read(&ready, &mut word)?;
    match &word[..n] {
        word if word == READY.as_bytes() => Ok(child),
        word => Err(io::Error::other(String::from_utf8_lossy(word).into_owned())),
    }
}

/// A PID namespace belongs to the user namespace of whoever makes it, so a child that has entered that makes the reaper.
fn by_heir(empty: &OwnedFd, user: &UserNamespace, tell: OwnedFd) -> io::Result<fork::Child> {
    let (number, say) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = move || {
        let enter = || {
            root::enter(empty)?;
            user.enter().map_err(io::Error::other)
        };
        let made = enter().and_then(|()| user::heir(move || run(|| namespace::unshare(UnshareFlags::NEWNS), tell)));
        let said = match made {
            Ok(child) => rustix::io::write(&say, &child.pid.as_raw_nonzero().get().to_ne_bytes()),
            Err(error) => rustix::io::write(&say, format!("in the user namespace: {error}").as_bytes()),
        };
        i32::from(said.is_err())
    };
    fork::spawn(0, None, child)?;
    let mut said = [0; 256];
    let count = rustix::io::read(&number, &mut said)?;
    let Ok(pid) = said[..count].try_into().map(i32::from_ne_bytes) else {
        return Err(io::Error::other(String::from_utf8_lossy(&said[..count]).into_owned()));
    };
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    Ok(fork::Child { pid, pidfd: pidfd_open(pid, PidfdFlags::empty())? })
}

fn run(enter: impl FnOnce() -> io::Result<()>, tell: OwnedFd) -> i32 {
    let _ = rustix::thread::set_name(c"tripod-reaper");
    let word = enter().and_then(|()| confine()).map_or_else(|e| e.to_string(), |()| READY.to_owned());
    let confined = word == READY;
    let _ = rustix::io::write(&tell, word.as_bytes());
    if !confined {
        return 1;
    }
    exec::with_stdio_and(&[tell], |_| bury())
}

fn confine() -> io::Result<()> {
    // Nobody in the pod looks into it, or makes it do something, but with CAP_SYS_PTRACE.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let stdin = rustix::stdio::stdin();
    rustix::stdio::dup2_stdout(stdin)?;
    rustix::stdio::dup2_stderr(stdin)?;
    // A container with CAP_SYS_PTRACE can make this process do what it likes: execute something as root too, which must
    // not bring rights back.
    caps::limit_bounding(0)?;
    caps::set(Sets::default())?;
    Ok(set_no_new_privs(true)?)
}

fn bury() -> i32 {
    let Ok(signals) = ChildSignals::new() else { return 1 };
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let _ = poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None);
        signals.clear();
    }
}

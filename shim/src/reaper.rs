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
    process::{DumpableBehavior, WaitOptions, set_dumpable_behavior, wait},
    thread::{UnshareFlags, set_no_new_privs},
};
use tripod_sys::{
    caps::{self, Sets},
    exec, fork, namespace, root,
    signal::ChildSignals,
};

/// Starts it and waits until it has confined itself, in a copy of the mount namespace `empty`.
pub(crate) fn start(empty: &OwnedFd) -> io::Result<fork::Child> {
    let (ready, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = fork::spawn(fork::NEW_PID, None, move || {
        let _ = rustix::thread::set_name(c"tripod-reaper");
        let word = confine(empty).map_or_else(|e| e.to_string(), |()| READY.to_owned());
        let confined = word == READY;
        let _ = rustix::io::write(&tell, word.as_bytes());
        if !confined {
            return 1;
        }
        exec::with_stdio_and(&[tell], |_| bury())
    })?;
    let mut word = [0; 256];
    // It says one thing and does nothing that could block, so that this read ends.
    let n = rustix::io::read(&ready, &mut word)?;
    match &word[..n] {
        word if word == READY.as_bytes() => Ok(child),
        word => Err(io::Error::other(String::from_utf8_lossy(word).into_owned())),
    }
}

const READY: &str = "ready";

fn confine(empty: &OwnedFd) -> io::Result<()> {
    // Nobody in the pod looks into it, or makes it do something, but with CAP_SYS_PTRACE.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let stdin = rustix::stdio::stdin();
    rustix::stdio::dup2_stdout(stdin)?;
    rustix::stdio::dup2_stderr(stdin)?;
    root::enter(empty)?;
    namespace::unshare(UnshareFlags::NEWNS)?;
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

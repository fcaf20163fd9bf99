//! A process and all its descendants, killed so that none slips away.

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tripod_sys::signal;

/// Ends a process whatever it does.
pub(crate) const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

/// Passes over a tree that grows while it is stopped.
const MAX_PASSES: usize = 16;

/// Kills `root`, which must not have been reaped, and its descendants.
///
/// Killing a parent first would hand its children to PID 1 of the namespace, where nobody finds them; so all are stopped
/// first, and what a process forked before it stopped is found by looking again.
pub(crate) fn kill(root: Pid, root_fd: &OwnedFd) {
    let _ = signal::send(root_fd, SIGSTOP);
    let mut found: Vec<(Pid, OwnedFd)> = Vec::new();
    for _ in 0..MAX_PASSES {
        let before = found.len();
        look(root, &mut found);
        let mut at = 0;
        while let Some((pid, _)) = found.get(at) {
            look(*pid, &mut found);
            at += 1;
        }
        if found.len() == before {
            break;
        }
    }
    for (_, fd) in &found {
        let _ = signal::send(fd, SIGKILL);
    }
    let _ = signal::send(root_fd, SIGKILL);
}

/// Stops the children of `parent` that are not yet in `found` and adds them.
fn look(parent: Pid, found: &mut Vec<(Pid, OwnedFd)>) {
    for pid in children(parent) {
        if found.iter().any(|(known, _)| *known == pid) {
            continue;
        }
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // It may have ended, and its number may be somebody else's, since the list was read.
        if children(parent).contains(&pid) {
            let _ = signal::send(&fd, SIGSTOP);
            found.push((pid, fd));
        }
    }
}

/// Children of all threads of a process.
fn children(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero())) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

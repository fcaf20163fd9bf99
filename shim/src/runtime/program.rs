//! When a container that a runtime has started executes its own program.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

/// How long a process that the runtime has let go may take to execute the program. In runtimes that are a kernel of their
/// own it never does.
const LIMIT: Duration = Duration::from_millis(250);
/// How often that is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// What a process executes, as device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program(u64, u64);

impl Program {
    /// That of a process, unless it has ended.
    pub(super) fn of(pid: Pid) -> Option<Self> {
        let stat = rustix::fs::stat(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok()?;
        Some(Self(stat.st_dev, stat.st_ino))
    }

    /// Waits until a process executes something else than this, or has ended. Until then it is the runtime's: a signal that
    /// is to stop the container would be caught there, and lost.
    pub(super) fn replaced(self, pid: Pid) {
        let until = Instant::now() + LIMIT;
        while Self::of(pid) == Some(self) && Instant::now() < until {
            thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_executes_another_program_is_noticed() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read line; exec sleep 1000"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let waiting = Program::of(pid).unwrap();
        let began = Instant::now();
        waiting.replaced(pid);
        assert!(began.elapsed() >= LIMIT && Program::of(pid) == Some(waiting));
        drop(child.stdin.take());
        while Program::of(pid) == Some(waiting) {
            waiting.replaced(pid);
            assert!(began.elapsed() < Duration::from_secs(60));
        }
        assert!(Program::of(pid).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Program::of(pid), None);
    }
}

//! When a container that a runtime has started executes its own program.
//!
//! Until it does, its process is the runtime's: a signal that is to stop the container would be caught there, and lost. The
//! kernel tells nobody of an execve, so that it is looked at now and then, while everything else goes on.

use std::time::{Duration, Instant};

use rustix::process::Pid;

/// How long the answer to a start waits for that. In runtimes that are a kernel of their own it never comes.
const ANSWER: Duration = Duration::from_millis(250);
/// How long after the start signals are kept for a program that has not been executed.
const KEEP: Duration = Duration::from_secs(10);
/// The first pause between two looks; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What a process executes, as device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program(u64, u64);

/// A process that the runtime has let go, and that has not been seen to execute another program.
#[derive(Debug)]
pub(crate) struct Awaited {
    pid: Pid,
    waiting: Program,
    answer: Instant,
    end: Instant,
    pause: Duration,
    next: Instant,
    /// The start has been answered.
    answered: bool,
    /// Signals for the program.
    kept: Vec<i32>,
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// There is no need to wait any longer.
    Over,
    /// The start is to be answered, and signals are kept.
    Late,
    /// Nothing new.
    Nothing,
}

// === impl Program ===

impl Program {
    /// That of a process, unless it has ended.
    pub(super) fn of(pid: Pid) -> Option<Self> {
        let stat = rustix::fs::stat(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok()?;
        Some(Self(stat.st_dev, stat.st_ino))
    }
}

// === impl Awaited ===

impl Awaited {
    /// `waiting` is what the process executed before it was let go. `None` if it executes something else already, or has
    /// ended.
    pub(super) fn new(pid: Pid, waiting: Program) -> Option<Self> {
        let now = Instant::now();
        let awaited = Self {
            pid,
            waiting,
            answer: now + ANSWER,
            end: now + KEEP,
            pause: FIRST_PAUSE,
            next: now + FIRST_PAUSE,
            answered: false,
            kept: Vec::new(),
        };
        awaited.waits().then_some(awaited)
    }

    fn waits(&self) -> bool {
        Program::of(self.pid) == Some(self.waiting)
    }

    /// When to look next; never while nobody waits for it.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.answered || !self.kept.is_empty()).then_some(self.next)
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self, now: Instant) -> Seen {
        if self.due().is_none_or(|due| now < due) {
            return Seen::Nothing;
        }
        if now >= self.end || !self.waits() {
            return Seen::Over;
        }
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        self.next = now + self.pause;
        if !self.answered && now >= self.answer {
            self.answered = true;
            return Seen::Late;
        }
        Seen::Nothing
    }

    /// Keeps a signal for the program; `false` if there is no need to.
    pub(super) fn keep(&mut self, number: i32) -> bool {
        let now = Instant::now();
        if now >= self.end || !self.waits() {
            return false;
        }
        if self.kept.is_empty() {
            (self.pause, self.next) = (FIRST_PAUSE, now + FIRST_PAUSE);
        }
        // One that is still to come is not counted, by the kernel either.
        if !self.kept.contains(&number) {
            self.kept.push(number);
        }
        true
    }

    /// The signals that were kept, in their order.
    pub(super) fn into_kept(self) -> Vec<i32> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        thread,
    };

    use super::*;

    #[test]
    fn a_program_is_awaited_until_it_is_executed() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read line; exec sleep 1000"]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let mut awaited = Awaited::new(pid, Program::of(pid).unwrap()).unwrap();
        let begin = Instant::now();
        assert_eq!(awaited.look(awaited.next - Duration::from_micros(1)), Seen::Nothing, "it is not time yet");
        let first = awaited.next;
        assert_eq!(awaited.look(first), Seen::Nothing);
        assert!(awaited.next > first && awaited.pause == FIRST_PAUSE * 2);
        let late = awaited.answer;
        assert_eq!(awaited.look(late), Seen::Late);
        assert_eq!((awaited.due(), awaited.look(late + KEEP / 2)), (None, Seen::Nothing), "nobody waits for it");
        assert!(awaited.keep(15) && awaited.keep(10) && awaited.keep(15));
        assert!(awaited.due().is_some_and(|due| due >= begin));
        let due = awaited.next;
        assert_eq!(awaited.look(due), Seen::Nothing);
        drop(child.stdin.take());
        while awaited.waits() {
            thread::sleep(Duration::from_millis(1));
            assert!(begin.elapsed() < Duration::from_secs(60));
        }
        assert_eq!(awaited.look(awaited.next), Seen::Over);
        assert!(!awaited.keep(12), "the program can take it");
        assert_eq!(awaited.into_kept(), [15, 10]);
        let sleeps = Program::of(pid).unwrap();
        let mut endless = Awaited::new(pid, sleeps).unwrap();
        assert_eq!(endless.look(endless.end), Seen::Over, "some never execute one");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Awaited::new(pid, sleeps).is_none());
    }
}

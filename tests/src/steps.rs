//! Killing a program at any of its steps to the disk: at the Nth system call that changes names, writes at a place in a
//! file, or syncs. The kernel stops it there and asks (seccomp's notifications), so that no step is missed.

use std::{
    fs,
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use libseccomp::{ScmpAction, ScmpFilterContext, ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, ScmpSyscall};
use rustix::process::{Pid, Signal, kill_process};

/// What a program can tell the disk, but for plain writes, which reach nobody before one of these follows.
const STEPS: [&str; 16] = [
    "rename",
    "renameat",
    "renameat2",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "pwrite64",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "rmdir",
    "link",
    "linkat",
];
/// Where the thread that has the filter wakes the one that answers for it.
const NOWHERE: &str = "/tripod-tests-no-such-folder";
/// Failures to hear of a step before the test is given up.
const MANY: u32 = 1000;

/// How a program ended, and what steps it began.
#[derive(Debug)]
pub struct Steps {
    /// How it ended.
    pub status: ExitStatus,
    /// Steps that it began.
    pub taken: usize,
    /// The names of those system calls. Before the last of a program that was killed it was stopped.
    pub calls: Vec<String>,
}

/// Starts programs that can be killed at their steps, one after the other.
#[derive(Debug)]
pub struct Stepper {
    /// For the thread that has the filter, which what it starts has, too.
    commands: mpsc::Sender<Command>,
    ends: mpsc::Receiver<ExitStatus>,
    /// Where the kernel asks. libseccomp has but one for a process.
    listener: i32,
    over: Arc<AtomicBool>,
}

impl Stepper {
    /// The one of this process.
    #[allow(clippy::new_without_default, reason = "it starts a thread")]
    pub fn new() -> Self {
        let (commands, jobs) = mpsc::channel::<Command>();
        let (done, ends) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        thread::spawn(move || {
            let filter = filter().expect("a seccomp filter");
            tell.send(filter.get_notify_fd().expect("a listener")).expect("somebody who listens");
            for mut command in jobs {
                let mut child = command.spawn().expect("start the program");
                let status = child.wait().expect("wait for the program");
                ended.store(true, Ordering::SeqCst);
                let _ = fs::remove_dir(NOWHERE);
                if done.send(status).is_err() {
                    return;
                }
            }
        });
        Self { commands, ends, listener: told.recv().expect("a listener"), over }
    }

    /// Runs a program to its end, or kills it with SIGKILL right before its step number `last` (the first is 0).
    pub fn run_until(&self, command: Command, last: usize) -> Steps {
        self.over.store(false, Ordering::SeqCst);
        self.commands.send(command).expect("the thread that starts programs");
        let (mut taken, mut failures, mut calls) = (0, 0, Vec::new());
        loop {
            let request = match ScmpNotifReq::receive(self.listener) {
                Ok(request) => request,
                Err(error) => {
                    // Who was killed in the midst of asking asks no more.
                    failures += 1;
                    assert!(failures < MANY, "the kernel does not tell what the program does: {error}");
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
            };
            let over = self.over.load(Ordering::SeqCst);
            if !over {
                taken += 1;
                calls.push(request.data.syscall.get_name().unwrap_or_default());
                if taken == last.saturating_add(1) {
                    let pid = Pid::from_raw(request.pid.cast_signed()).expect("a process");
                    // The number of any thread does for the whole process.
                    kill_process(pid, Signal::KILL).expect("kill the program");
                    continue;
                }
            }
            // Who was killed meanwhile needs no answer.
            let _ = ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::empty()).respond(self.listener);
            if over {
                break;
            }
        }
        Steps { status: self.ends.recv().expect("the end of the program"), taken, calls }
    }
}

fn filter() -> Result<ScmpFilterContext, libseccomp::error::SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    filter.set_ctl_nnp(false)?;
    for name in STEPS {
        // Not every architecture has all of them.
        if let Ok(call) = ScmpSyscall::from_name(name) {
            let _ = filter.add_rule(ScmpAction::Notify, call);
        }
    }
    filter.load()?;
    Ok(filter)
}

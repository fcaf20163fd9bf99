//! Killing a program at any of its steps to the disk: at the Nth system call that changes names, writes at a place in a
//! file, or syncs. The kernel stops it there and asks (seccomp's notifications), so that no step is missed.

use std::{
    fs,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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

/// What came of it.
#[derive(Debug)]
pub struct Steps {
    /// How the program ended.
    pub status: ExitStatus,
    /// How many steps it began.
    pub taken: usize,
}

/// Runs a program to its end, or kills it with SIGKILL right before its step number `last` (the first is 0).
pub fn run_until(mut command: Command, last: usize) -> Steps {
    let (listener, listening) = mpsc::channel();
    let ended = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicUsize::new(0));
    let over = Arc::clone(&ended);
    // The filter is for this thread and what it starts.
    let runner = thread::spawn(move || {
        let filter = filter().expect("a seccomp filter");
        listener.send(filter.get_notify_fd().expect("a listener")).expect("somebody who listens");
        let mut child: Child = command.spawn().expect("start the program");
        let status = child.wait().expect("wait for the program");
        over.store(true, Ordering::SeqCst);
        let _ = fs::remove_dir(NOWHERE);
        status
    });
    let descriptor = listening.recv().expect("a listener");
    let mut failures = 0;
    loop {
        let Ok(request) = ScmpNotifReq::receive(descriptor) else {
            // Who was killed in the midst of asking asks no more.
            failures += 1;
            assert!(failures < MANY, "the kernel does not tell what the program does");
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let over = ended.load(Ordering::SeqCst);
        if !over && taken.fetch_add(1, Ordering::SeqCst) == last {
            let pid = Pid::from_raw(request.pid.cast_signed()).expect("a process");
            // Any thread's number does for the whole process.
            kill_process(pid, Signal::KILL).expect("kill the program");
            continue;
        }
        // Who was killed meanwhile needs no answer.
        let _ = ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::empty()).respond(descriptor);
        if over {
            break;
        }
    }
    let status = runner.join().expect("the thread that runs the program");
    Steps { status, taken: taken.load(Ordering::SeqCst).min(last.saturating_add(1)) }
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

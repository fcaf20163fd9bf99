//! Forking needs a process with one thread, which the usual test harness is not; so this is a plain program.
//! Needs root for the namespaces.

#![allow(clippy::unwrap_used, reason = "a test without the harness, which clippy does not recognise as one")]

use std::process::ExitCode;

use rustix::process::{WaitOptions, getpid, waitpid};
use tripod_sys::{exec, fork, signal};

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("this test makes namespaces and needs root");
        return ExitCode::FAILURE;
    }
    exit_code_comes_back();
    child_is_first_of_its_namespace();
    unknown_flags_are_refused();
    only_the_channel_stays_open();
    signals_are_reset();
    several_threads_are_refused();
    ExitCode::SUCCESS
}

fn exit_code_of(child: &fork::Child) -> Option<i32> {
    let (_, status) = waitpid(Some(child.pid), WaitOptions::empty()).unwrap().unwrap();
    status.exit_status()
}

fn exit_code_comes_back() {
    let child = fork::spawn(0, None, || 7).unwrap();
    assert_eq!(exit_code_of(&child), Some(7));
}

fn child_is_first_of_its_namespace() {
    let child = fork::spawn(fork::NEW_PID | fork::NEW_MOUNT, None, || getpid().as_raw_nonzero().get()).unwrap();
    assert_eq!(exit_code_of(&child), Some(1));
}

fn unknown_flags_are_refused() {
    assert!(fork::spawn(1 << 8, None, || 0).is_err());
}

fn only_the_channel_stays_open() {
    let (read, write) = std::io::pipe().unwrap();
    let other = std::fs::File::open("/dev/null").unwrap();
    let child = fork::spawn(0, None, move || {
        let _kept = (&other, &read);
        let null = std::fs::File::open("/dev/null").unwrap();
        exec::with_stdio_and(&[write.into(), null.into()], |kept| {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
            let pipe = rustix::fs::fstat(kept[0])
                .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo);
            // Three, the two, and the folder that is being read.
            i32::from(open != 6 || !pipe || rustix::io::fcntl_getfd(kept[1]).is_err())
        })
    })
    .unwrap();
    assert_eq!(exit_code_of(&child), Some(0));
    assert!(exec::inherited(2).is_none(), "standard error is not for taking");
    assert!(exec::inherited(200).is_none(), "nothing is open there");
}

fn signals_are_reset() {
    let child = fork::spawn(0, None, || {
        signal::ignore_all_that_end_us();
        let _ = signal::ChildSignals::new();
        signal::reset_all();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let clean = |name: &str| status.lines().any(|line| line == format!("{name}:\t0000000000000000"));
        i32::from(!clean("SigBlk") || !clean("SigIgn") || !clean("SigCgt"))
    })
    .unwrap();
    assert_eq!(exit_code_of(&child), Some(0));
}

fn several_threads_are_refused() {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().is_err());
    assert!(fork::spawn(0, None, || 0).is_err());
    drop(stop);
    assert!(thread.join().unwrap());
}

//! Forking needs a process with one thread, which the usual test harness is not; so this is a plain program.
//! Needs root for the namespaces.

#![allow(clippy::unwrap_used, reason = "a test without the harness, which clippy does not recognise as one")]

use std::process::ExitCode;

use rustix::process::{WaitOptions, getpid, waitpid};
use tripod_sys::fork;

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("this test makes namespaces and needs root");
        return ExitCode::FAILURE;
    }
    exit_code_comes_back();
    child_is_first_of_its_namespace();
    unknown_flags_are_refused();
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

fn several_threads_are_refused() {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv().is_err());
    assert!(fork::spawn(0, None, || 0).is_err());
    drop(stop);
    assert!(thread.join().unwrap());
}

//! tripod-shim: the one small process per pod that holds its namespaces, containers, logs and exit records.
//!
//! The daemon starts it with a listening socket as descriptor 3 and tells it what to do in the messages of
//! `tripod-shim-protocol`. It decides nothing, and it outlives the daemon.
//!
//! It has one thread, by law: children are forked from it, and they may allocate only because of that.
#![forbid(unsafe_code)]

mod attach;
mod birthplace;
mod child;
mod clock;
mod containers;
mod execs;
mod exits;
mod fault;
mod hooks;
mod link;
mod log;
mod output;
mod pace;
mod pod;
mod poll;
mod reaper;
mod runtime;
mod shim;
mod start;
mod stdio;
mod tree;
mod user;
mod viewer;

use std::{io::Write, process::ExitCode};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tripod_sys::{exec, memory, signal};

use crate::shim::Shim;

/// The listening socket's number.
const LISTENER: u8 = 3;

fn main() -> ExitCode {
    let Some(pod) = std::env::args().nth(1) else {
        return fail("usage: tripod-shim POD_ID, with a listening unix socket as descriptor 3");
    };
    memory::be_frugal();
    become_inconspicuous();
    let Some(listener) = exec::inherited(LISTENER) else {
        return fail(&format!("pod {pod}: descriptor 3 is not open; it must be a listening unix socket"));
    };
    match Shim::new(listener).and_then(Shim::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("pod {pod}: {error}")),
    }
}

/// Nothing here may fail: a machine that refuses some of it still runs pods.
fn become_inconspicuous() {
    signal::ignore_all_that_end_us();
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let _ = rustix::thread::set_name(c"tripod-shim");
    // No process of a container may look into the shim, or into a child on its way to becoming a container's process.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Losing the shim means losing the exit codes of a pod. The kernel refuses without CAP_SYS_RESOURCE.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
}

fn fail(message: &str) -> ExitCode {
    note(message);
    ExitCode::FAILURE
}

/// A line on standard error, which may be closed or full: that is no reason to end.
fn note(message: &str) {
    let _ = writeln!(std::io::stderr(), "tripod-shim: {message}");
}

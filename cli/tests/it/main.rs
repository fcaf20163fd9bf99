//! The commands as a person sees them: each runs as a program of its own, at a terminal or between pipes, against a
//! daemon that says what a test wants it to say.
//!
//! This program is all of them: it starts itself again as the command, and before that as what gives it a terminal.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test must fail loudly where it stands")]

mod command;
mod daemon;
mod forward;
mod logs;
mod sessions;
mod terminals;
mod tls;

use std::{future::Future, process::ExitCode, time::Duration};

use libtest_mimic::{Arguments, Failed, Trial};

/// Longest time of one test.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if let Some(stage) = command::stage() {
        return stage;
    }
    let arguments = Arguments::from_args();
    let trials = [sessions::tests(), terminals::tests(), tls::tests(), forward::tests(), logs::tests()];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// A test with a runtime of its own and an end at the latest after a while.
fn test<F: Future<Output = ()>>(name: &str, run: impl FnOnce() -> F + Send + 'static) -> Trial {
    let limited = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, run()).await });
        runtime.shutdown_background();
        ended.map_err(|_| Failed::from(format!("the test did not end within {LIMIT:?}")))
    };
    Trial::test(name, limited)
}

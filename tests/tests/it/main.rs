//! Tests over a real daemon, by subject.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test must fail loudly where it stands")]

mod isolation;

use std::process::ExitCode;

fn main() -> ExitCode {
    tripod_tests::run(&[isolation::TESTS], concat!(env!("CARGO_TARGET_TMPDIR"), "/logs"))
}

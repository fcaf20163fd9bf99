//! Drives the real `tripod-shim` over its socket, on the real kernel. Needs root and Debian's `busybox-static`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests; clippy knows only those in functions marked so")]

mod attach;
mod exec;
mod hooks;
mod launch;
mod life;
mod logs;
mod mounts;
mod nested;
mod seccomp;
mod stages;
mod support;

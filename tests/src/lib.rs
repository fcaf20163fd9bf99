//! Integration tests over a real daemon: what they run on and with.
//!
//! Each test is a node of its own: [`run`] starts this program again for it in fresh namespaces (mount, network, PID, IPC,
//! UTS, cgroup) with its own cgroup hierarchies, `/run`, `/sys` and uplink. So tests run beside each other and beside
//! other copies of themselves, the daemon runs with its defaults, and nothing can outlive a test on the machine.
//! What is left on the node when a test has passed is counted ([`Leaks`]), and fails it.
//!
//! * [`Node`]: what a test is given. [`Daemon`] starts, kills and restarts `tripod`; [`Cri`] talks to it.
//! * [`Registry`] serves images from memory and can be told to fail; [`DebianRegistry`] is Debian's docker-registry.
//! * [`Client`], [`Forward`], [`python`] and [`crictl`] go to streaming URLs as kubectl and others do.
//! * [`Image`] and [`Tree`] make images on the spot, honest or hostile.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test must fail loudly where it stands")]

pub mod cgroup;
mod clients;
mod command;
mod cri;
mod daemon;
mod debian;
mod disk;
mod image;
mod intruder;
mod isolation;
mod leaks;
mod node;
pub mod peer;
mod processes;
mod programs;
mod registry;
mod requests;
mod runner;
pub mod runtime;
mod server;
mod steps;
mod streams;
mod tree;
mod wait;

pub use clients::{Client, Forward, Many, Outcome, Session, Sizes, crictl, crictl_run, python, transports};
pub use command::{tripod, with_input};
pub use cri::{Cri, log_text};
pub use daemon::{Daemon, Settings};
pub use debian::DebianRegistry;
pub use disk::{Boot, Disk, Format, Journal};
pub use image::{Image, Layer, digest};
pub use intruder::intruder;
pub use leaks::Leaks;
pub use node::Node;
pub use processes::{Holdings, processes, threads, zombies};
pub use registry::{Fault, Registry};
pub use requests::{BUSYBOX, container, host_pod, image_spec, mount, pod, security_of, shell, unconfined};
pub use runner::{Test, run};
pub use server::Server;
pub use steps::{Stepper, Steps};
pub use streams::Wanted;
pub use tree::{Tree, busybox};
pub use wait::{eventually, patient, within};

//! Tests over a real daemon, by subject. A number above a test is the line of the contract that it proves.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test must fail loudly where it stands")]

mod apparmor;
mod artifacts;
mod attach;
mod bad_input;
mod cli_streams;
mod containers;
mod disk_faults;
mod escapes;
mod events;
mod exec;
mod exec_streams;
mod fifty;
mod filesystem;
mod grounds;
mod hooks;
mod hostile_images;
mod image_archives;
mod image_commands;
mod image_races;
mod images;
mod into_userns;
mod isolation;
mod joins;
mod kill_steps;
mod kubelet_path;
mod limits;
mod logs;
mod main_job;
mod oci;
mod oci_waits;
mod pods;
mod policy;
mod policy_cosign;
mod port_forward;
mod processes;
mod provisioners;
mod quotas;
mod recovery;
mod refusals;
mod resources;
mod seccomp;
mod selinux;
mod service;
mod stream_faults;
mod stream_masses;
mod stream_settings;
mod terminals;
mod userns;
mod volumes;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = &[
        isolation::TESTS,
        main_job::TESTS,
        service::TESTS,
        pods::TESTS,
        policy::TESTS,
        policy_cosign::TESTS,
        artifacts::TESTS,
        containers::TESTS,
        processes::TESTS,
        seccomp::TESTS,
        apparmor::TESTS,
        oci::TESTS,
        oci_waits::TESTS,
        hooks::TESTS,
        selinux::TESTS,
        resources::TESTS,
        limits::TESTS,
        provisioners::TESTS,
        quotas::TESTS,
        volumes::TESTS,
        filesystem::TESTS,
        escapes::TESTS,
        hostile_images::TESTS,
        userns::TESTS,
        into_userns::TESTS,
        exec::TESTS,
        exec_streams::TESTS,
        terminals::TESTS,
        attach::TESTS,
        port_forward::TESTS,
        kubelet_path::TESTS,
        stream_faults::TESTS,
        stream_masses::TESTS,
        stream_settings::TESTS,
        cli_streams::TESTS,
        logs::TESTS,
        images::TESTS,
        image_archives::TESTS,
        image_commands::TESTS,
        image_races::TESTS,
        disk_faults::TESTS,
        grounds::TESTS,
        kill_steps::TESTS,
        events::TESTS,
        joins::TESTS,
        bad_input::TESTS,
        refusals::TESTS,
        recovery::TESTS,
        fifty::TESTS,
    ];
    tripod_tests::run(tests, concat!(env!("CARGO_TARGET_TMPDIR"), "/logs"))
}

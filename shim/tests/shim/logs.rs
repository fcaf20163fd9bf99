//! What containers write.

use std::{fs, time::Duration};

use tripod_shim_protocol::{FailureKind, PidNamespace, Reply, Request};

use crate::support::*;

fn reopen(id: &str) -> Request {
    Request::ReopenLog { container: id.into() }
}

#[test]
fn long_lines_are_split_and_ends_without_newline_are_parts() {
    let mut pod = Pod::new(|_| {});
    pod.run("c1", "yes x | tr -d '\\n' | head -c 40000; echo; printf 'no end'");
    let lines: Vec<_> = pod.log("c1").into_iter().map(|(_, tag, text)| (tag, text.len())).collect();
    assert_eq!(lines, [('P', 16384), ('P', 16384), ('F', 40000 - 2 * 16384), ('P', 6)]);
}

#[test]
fn much_output_arrives_whole() {
    let mut pod = Pod::new(|_| {});
    let (code, text) = pod.run("c1", "seq 1 300000");
    assert_eq!(code, 0);
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(text == expected, "{} bytes instead of {}", text.len(), expected.len());
}

#[test]
fn a_log_that_was_renamed_is_opened_anew_without_loss() {
    let mut pod = Pod::new(|_| {});
    pod.launch(pod.plan("c1", "n=0; until [ -e /done ]; do echo line $n; n=$((n+1)); sleep 0.002; done")).unwrap();
    let path = pod.log_path("c1");
    let mut text = String::new();
    for turn in 0..5 {
        wait_until("lines", || fs::metadata(&path).is_ok_and(|meta| meta.len() > 500));
        let old = path.with_extension(turn.to_string());
        fs::rename(&path, &old).unwrap();
        assert_eq!(pod.client.ask(reopen("c1"), vec![]), Ok(Reply::Done));
        text += &fs::read_to_string(old).unwrap();
    }
    fs::write(pod.path().join("rootfs/c1/done"), "").unwrap();
    assert_eq!(pod.client.exit("c1").code, 0);
    text += &fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = parse_log(&text).into_iter().map(|(_, _, line)| line).collect();
    assert!(lines.len() > 40, "{} lines", lines.len());
    assert_eq!(lines, (0..lines.len()).map(|n| format!("line {n}")).collect::<Vec<_>>());
    assert_eq!(pod.client.ask(reopen("c1"), vec![]).unwrap_err().kind, FailureKind::NotRunning);
    assert_eq!(pod.client.ask(reopen("none"), vec![]).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn a_container_without_a_log_is_not_held_up() {
    let mut pod = Pod::new(|_| {});
    let mut plan = pod.plan("c1", "seq 1 100000; exit 2");
    plan.log = None;
    pod.launch(plan).unwrap();
    assert_eq!(pod.client.exit("c1").code, 2);
}

#[test]
fn a_full_disk_holds_nobody_up_and_is_accounted_for() {
    let mut pod = Pod::new(|_| {});
    let small = pod.path().join("logs/c1");
    fs::create_dir_all(&small).unwrap();
    let options = [("size", tripod_sys::mount::Value::String("64k"))];
    let tmpfs = tripod_sys::mount::new_filesystem("tmpfs", &options, Default::default()).unwrap();
    tripod_sys::mount::attach(&tmpfs, fs::File::open(&small).unwrap()).unwrap();
    let unmount = Unmount(small.clone());
    let (record, _) = pod.run_plan(pod.plan("c1", "seq 1 100000"));
    let log = fs::read_to_string(pod.log_path("c1")).unwrap();
    drop(unmount);
    assert_eq!(record.code, 0);
    let written: usize = parse_log(&log).iter().map(|(_, _, line)| line.len()).sum();
    let all: usize = (1..=100_000).map(|n: u32| n.to_string().len()).sum();
    assert_eq!(written + record.log_bytes_lost as usize, all);
    assert!(log.ends_with('\n'), "whole lines only");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn an_end_is_seen_though_another_process_holds_the_output_open() {
    let mut pod = Pod::new(|plan| plan.shared_pid = true);
    let mut plan = pod.plan("c1", "/bin/sleep 60 & echo last words");
    plan.pid = PidNamespace::Pod;
    let begin = std::time::Instant::now();
    let (record, text) = pod.run_plan(plan);
    assert_eq!((record.code, text.as_str()), (0, "last words\n"));
    assert!(begin.elapsed() < Duration::from_secs(40));
}

#[test]
fn standard_input_stays_open_if_asked_for() {
    let mut pod = Pod::new(|_| {});
    assert_eq!(pod.run("closed", "cat; echo end"), (0, "end\n".into()));
    let mut plan = pod.plan("open", "echo begin; cat; echo end");
    plan.stdin = true;
    pod.launch(plan).unwrap();
    wait_until("begin", || pod.text("open") == "begin\n");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(pod.text("open"), "begin\n");
}

#[test]
fn a_log_that_cannot_be_opened_fails_the_start() {
    let mut pod = Pod::new(|_| {});
    fs::write(pod.path().join("logs"), "a file where a folder should be").unwrap();
    let failure = pod.launch(pod.plan("c1", "touch /ran")).unwrap_err();
    assert!(failure.step.contains("logs/c1/0.log"), "{failure}");
    assert!(!pod.path().join("rootfs/c1/ran").exists());
    fs::remove_file(pod.path().join("logs")).unwrap();
    assert_eq!(pod.launch_in(&pod.path().join("rootfs/c1"), pod.plan("c1", "exit 1")).map(|_| ()), Ok(()));
    assert_eq!(pod.client.exit("c1").code, 1);
}

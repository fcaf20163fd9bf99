//! `logs`: files of a container that a test plays.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use libtest_mimic::Trial;

use crate::{
    command::{outcome, tripod},
    daemon::{Daemon, Socket},
    test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("a_log_is_shown_as_it_was_written", a_log_is_shown_as_it_was_written),
        test("following_ends_with_the_container", following_ends_with_the_container),
        test("following_outlives_the_daemon", following_outlives_the_daemon),
        test("following_ends_when_nothing_more_is_to_be_shown", following_ends_when_nothing_more_is_to_be_shown),
        test("a_log_that_is_not_kept_is_told", a_log_that_is_not_kept_is_told),
    ]
}

/// A daemon whose container has a log.
async fn with_log(text: &str) -> (Daemon, tempfile::TempDir, PathBuf) {
    let daemon = Daemon::start(|_: Socket| async {}).await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("0.log");
    std::fs::write(&log, text).unwrap();
    daemon.state.lock().unwrap().log = log.to_string_lossy().into_owned();
    (daemon, folder, log)
}

async fn a_log_is_shown_as_it_was_written() {
    let text = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr F two\n\
        2026-01-01T00:00:03Z stdout P thr\n2026-01-01T00:00:04Z stdout F ee\n";
    let (daemon, _folder, _) = with_log(text).await;
    for (options, out, err) in [
        (&[][..], "one\nthree\n", "two\n"),
        (&["--tail", "2"], "three\n", "two\n"),
        (&["-t", "-n1"], "2026-01-01T00:00:03Z three\n", ""),
        (&["--since", "2026-01-01T00:00:02Z"], "three\n", "two\n"),
        (&["--since", "2026-01-01T01:00:02+01:00", "--until", "2026-01-01T00:00:02.5Z"], "", "two\n"),
        (&["--since", "1h"], "", ""),
    ] {
        let output = outcome(tripod(&daemon.socket(), &[&["logs", "web"], options].concat()), b"").await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert_eq!((text(output.stdout), text(output.stderr)), (out.to_owned(), err.to_owned()), "{options:?}");
        assert_eq!(output.status.code(), Some(0));
    }
    // Where both go to one place, in the order in which they were written.
    let both = tempfile::NamedTempFile::new().unwrap();
    let mut command = tripod(&daemon.socket(), &["logs", "web"]);
    command.stdout(both.reopen().unwrap()).stderr(both.reopen().unwrap());
    outcome(command, b"").await;
    assert_eq!(std::fs::read_to_string(both.path()).unwrap(), "one\ntwo\nthree\n");
}

async fn following_ends_with_the_container() {
    let (daemon, _folder, log) = with_log("2026-01-01T00:00:01Z stdout F one\n").await;
    let mut child = tripod(&daemon.socket(), &["logs", "-f", "web"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    let state = daemon.state.clone();
    let follow = tokio::task::spawn_blocking(move || {
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        file.write_all(b"2026-01-01T00:00:02Z stdout F two\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        // As kubelet and the shim do it.
        std::fs::rename(&log, log.with_extension("log.20260101-000000")).unwrap();
        file.write_all(b"2026-01-01T00:00:03Z stdout F three\n").unwrap();
        std::fs::write(&log, "2026-01-01T00:00:04Z stdout F four\n2026-01-01T00:00:05Z stdout F cut").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "three");
        assert_eq!(lines.next().unwrap().unwrap(), "four");
        state.lock().unwrap().exit_code = Some(1);
        assert_eq!(lines.next().unwrap().unwrap(), "cut");
        assert!(lines.next().is_none());
        child.wait().unwrap().code()
    });
    assert_eq!(follow.await.unwrap(), Some(0));
}

async fn following_outlives_the_daemon() {
    let (daemon, _folder, log) = with_log("2026-01-01T00:00:01Z stdout F one\n").await;
    let socket = daemon.socket();
    let mut child = tripod(&socket, &["logs", "-f", "web"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let state = daemon.state.clone();
    let follow = tokio::task::spawn_blocking(move || {
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        state.lock().unwrap().silent = true;
        let told = errors.next().unwrap().unwrap();
        assert!(told.contains("the daemon does not answer") && told.contains("the log goes on"), "{told}");
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(b"2026-01-01T00:00:02Z stdout F two\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        let mut state = state.lock().unwrap();
        (state.silent, state.exit_code) = (false, Some(0));
        drop(state);
        assert!(lines.next().is_none() && errors.next().is_none());
        child.wait().unwrap().code()
    });
    assert_eq!(follow.await.unwrap(), Some(0));
}

async fn following_ends_when_nothing_more_is_to_be_shown() {
    let (daemon, _folder, _) = with_log("2026-01-01T00:00:01Z stdout F one\n").await;
    let command = tripod(&daemon.socket(), &["logs", "-f", "--until", "2026-01-01T00:00:02Z", "web"]);
    let output = tokio::time::timeout(Duration::from_secs(20), outcome(command, b"")).await.unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"one\n"[..]));
}

async fn a_log_that_is_not_kept_is_told() {
    let daemon = Daemon::start(|_: Socket| async {}).await;
    let run = async |arguments: &[&str]| {
        let mut command = tripod(&daemon.socket(), arguments);
        command.stdout(Stdio::null());
        let output = outcome(command, b"").await;
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&["logs", "web"]).await.contains("container web keeps no log"));
    assert!(run(&["logs", "--previous", "web"]).await.contains("no attempt before this one"));
    assert!(run(&["logs", "nobody"]).await.contains("no container \"nobody\""));
    let told = run(&["logs", "--since", "tomorrow", "web"]).await;
    assert!(told.contains("--since") && told.contains("10m"), "{told}");
}

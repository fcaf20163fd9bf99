//! `exec` and `attach` between pipes.

use std::{
    io::Read,
    process::Stdio,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    command::{outcome, signal, tripod},
    daemon::{Daemon, Socket, hear, say, say_exit},
    test,
};

const MEBIBYTE: usize = 1 << 20;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("output_and_exit_code_are_the_commands", output_and_exit_code_are_the_commands),
        test("arguments_are_handed_on_as_they_are", arguments_are_handed_on_as_they_are),
        test("input_is_handed_on_and_its_end_told", input_is_handed_on_and_its_end_told),
        test("large_output_is_whole", large_output_is_whole),
        test("output_that_nobody_reads_ends_the_session", output_that_nobody_reads_ends_the_session),
        test("a_session_that_breaks_off_is_told", a_session_that_breaks_off_is_told),
        test("a_failure_is_told_in_the_servers_words", a_failure_is_told_in_the_servers_words),
        test("a_timeout_ends_the_session", a_timeout_ends_the_session),
        test("signals_end_the_session", signals_end_the_session),
        test("a_reader_that_waits_keeps_nobody", a_reader_that_waits_keeps_nobody),
        test("a_terminal_that_is_not_there_is_told", a_terminal_that_is_not_there_is_told),
        test("attach_ends_with_the_containers_exit_code", attach_ends_with_the_containers_exit_code),
    ]
}

async fn output_and_exit_code_are_the_commands() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        for channel in 0..5 {
            say(&mut socket, channel, b"").await;
        }
        say(&mut socket, 1, b"out").await;
        say(&mut socket, 2, b"err\n").await;
        say(&mut socket, 1, b"put\n").await;
        say_exit(&mut socket, 42).await;
    })
    .await;
    let output = outcome(tripod(&daemon.socket(), &["exec", "web", "ls"]), b"").await;
    assert_eq!(
        (output.status.code(), &output.stdout[..], &output.stderr[..]),
        (Some(42), &b"output\n"[..], &b"err\n"[..])
    );
    let asked = daemon.state.lock().unwrap().exec.take().unwrap();
    assert_eq!((asked.container_id.as_str(), asked.stdin, asked.stdout, asked.stderr), ("c1", false, true, true));
}

async fn arguments_are_handed_on_as_they_are() {
    let daemon = Daemon::start(|mut socket: Socket| async move { say_exit(&mut socket, 0).await }).await;
    for (line, expected) in [
        (&["exec", "web", "ls", "-l", "--", "-t"][..], &["ls", "-l", "--", "-t"][..]),
        (&["exec", "web", "--", "ls", "-l"], &["ls", "-l"]),
        (&["exec", "--", "web", "ls", "-i"], &["ls", "-i"]),
        (&["exec", "-i", "web", "sh", "-c", "exit 3"], &["sh", "-c", "exit 3"]),
    ] {
        assert_eq!(outcome(tripod(&daemon.socket(), line), b"").await.status.code(), Some(0), "{line:?}");
        assert_eq!(daemon.state.lock().unwrap().exec.take().unwrap().cmd, expected, "{line:?}");
    }
}

async fn input_is_handed_on_and_its_end_told() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        while let Some((channel, data)) = hear(&mut socket).await {
            match channel {
                0 => say(&mut socket, 1, &data).await,
                255 => {
                    assert_eq!(data, [0]);
                    break;
                }
                other => panic!("channel {other}"),
            }
        }
        say(&mut socket, 1, b" end").await;
        say_exit(&mut socket, 0).await;
    })
    .await;
    let input = &*vec![b'x'; 3 * MEBIBYTE].leak();
    let output = outcome(tripod(&daemon.socket(), &["exec", "-i", "web", "cat"]), input).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), input.len() + 4);
    assert!(output.stdout.ends_with(b"x end"));
}

async fn large_output_is_whole() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        // The end is told before the last output: it is waited for.
        say(&mut socket, 3, br#"{"status":"Success"}"#).await;
        for number in 0..64 {
            say(&mut socket, 1, &vec![number; MEBIBYTE]).await;
        }
        let _ = socket.close(None).await;
    })
    .await;
    let output = outcome(tripod(&daemon.socket(), &["exec", "web", "cat"]), b"").await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 64 * MEBIBYTE));
    assert!(output.stdout.chunks(MEBIBYTE).enumerate().all(|(number, chunk)| chunk[0] as usize == number));
}

async fn output_that_nobody_reads_ends_the_session() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        use futures::SinkExt;
        let message = || tokio_tungstenite::tungstenite::Message::Binary([&[1][..], &[b'y'; 4096]].concat().into());
        while socket.send(message()).await.is_ok() {}
    })
    .await;
    let mut child = tripod(&daemon.socket(), &["exec", "web", "yes"]).spawn().unwrap();
    let code = tokio::task::spawn_blocking(move || {
        child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
        child.wait().unwrap().code()
    });
    assert_eq!(code.await.unwrap(), Some(141));
}

async fn a_session_that_breaks_off_is_told() {
    let daemon = Daemon::start(|mut socket: Socket| async move { say(&mut socket, 1, b"begin").await }).await;
    let output = outcome(tripod(&daemon.socket(), &["exec", "web", "cat"]), b"").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(125), &b"begin"[..]));
    assert!(text.contains("exec in web: the session broke off") && text.contains("may still run"), "{text}");
    daemon.state.lock().unwrap().exit_code = Some(3);
    let output = outcome(tripod(&daemon.socket(), &["exec", "web", "cat"]), b"").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("container web has ended with exit code 3"), "{text}");
    // Attached, that end is what was waited for.
    let output = outcome(tripod(&daemon.socket(), &["attach", "web"]), b"").await;
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn a_failure_is_told_in_the_servers_words() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        say(&mut socket, 3, br#"{"status":"Failure","message":"exec: \"nix\": executable file not found in $PATH"}"#)
            .await;
        let _ = socket.close(None).await;
    })
    .await;
    let output = outcome(tripod(&daemon.socket(), &["exec", "web", "nix"]), b"").await;
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(output.stderr, b"tripod: exec in web: exec: \"nix\": executable file not found in $PATH\n");
    // So is a refusal of the connection.
    let daemon = Daemon::start_raw("http", |mut stream| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = stream.read(&mut [0; 4096]).await;
        let text = b"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\nno such token here";
        stream.write_all(text).await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let output = outcome(tripod(&daemon.socket(), &["exec", "web", "nix"]), b"").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("404 Not Found") && text.contains("no such token here"), "{text}");
}

async fn a_timeout_ends_the_session() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        say(&mut socket, 1, b"begin").await;
        assert!(hear(&mut socket).await.is_none());
    })
    .await;
    let begin = Instant::now();
    let output = outcome(tripod(&daemon.socket(), &["exec", "--timeout", "3", "web", "sleep"]), b"").await;
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(124), &b"begin"[..]));
    assert!(begin.elapsed() < Duration::from_secs(25));
}

async fn signals_end_the_session() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        say(&mut socket, 1, b"begin").await;
        assert!(hear(&mut socket).await.is_none());
    })
    .await;
    for (number, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        // Input that never ends must not keep it.
        let mut command = tripod(&daemon.socket(), &["exec", "-i", "web", "cat"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let ended = tokio::task::spawn_blocking(move || {
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
            signal(&child, number);
            // Its input is still open here.
            let stdin = child.stdin.take();
            let status = child.wait().unwrap();
            drop(stdin);
            status.code()
        });
        assert_eq!(ended.await.unwrap(), Some(code));
    }
}

async fn a_reader_that_waits_keeps_nobody() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        // More than a pipe takes.
        say(&mut socket, 1, &[b'x'; 200_000]).await;
        say_exit(&mut socket, 0).await;
    })
    .await;
    let mut child = tripod(&daemon.socket(), &["exec", "web", "cat"]).spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "what is not written yet was dropped");
        signal(&child, Signal::INT);
        child.wait().unwrap().code()
    });
    assert_eq!(ended.await.unwrap(), Some(130));
}

async fn a_terminal_that_is_not_there_is_told() {
    let daemon = Daemon::start(|_: Socket| async {}).await;
    for command in [&["exec", "-it", "web", "sh"][..], &["exec", "-t", "web", "sh"], &["attach", "-it", "web"]] {
        let output = outcome(tripod(&daemon.socket(), command), b"").await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("-t needs a terminal") && text.contains("leave -t out"), "{text}");
        assert_eq!(output.status.code(), Some(125));
    }
}

async fn attach_ends_with_the_containers_exit_code() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        say(&mut socket, 1, b"bye\n").await;
        say_exit(&mut socket, 0).await;
    })
    .await;
    daemon.state.lock().unwrap().exit_code = Some(7);
    let output = outcome(tripod(&daemon.socket(), &["attach", "-i", "web"]), b"").await;
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"bye\n"[..]));
    let asked = daemon.state.lock().unwrap().attach.take().unwrap();
    assert_eq!((asked.stdin, asked.tty, asked.stdout, asked.stderr), (true, false, true, true));
}

//! `exec` and `attach` at a terminal: raw while the session lasts, and as it was before however it ends.

use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{
    command::{Terminal, tripod},
    daemon::{Daemon, Socket, hear, say, say_exit},
    test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("keys_and_sizes_go_through_a_raw_terminal", keys_and_sizes_go_through_a_raw_terminal),
        test("the_terminal_is_restored_after_a_break", the_terminal_is_restored_after_a_break),
        test("the_terminal_is_restored_after_a_signal", the_terminal_is_restored_after_a_signal),
        test("a_stopped_session_goes_on_raw", a_stopped_session_goes_on_raw),
        test("detach_keys_leave_a_container_running", detach_keys_leave_a_container_running),
        test("detach_keys_can_be_chosen", detach_keys_can_be_chosen),
        test("attach_without_input_leaves_the_terminal_alone", attach_without_input_leaves_the_terminal_alone),
    ]
}

/// Shows each message as text, until `q` is typed.
async fn mirror(mut socket: Socket) {
    say(&mut socket, 1, b"ready ").await;
    while let Some((channel, data)) = hear(&mut socket).await {
        if data == b"q" {
            return say_exit(&mut socket, 9).await;
        }
        let data = String::from_utf8_lossy(&data).escape_debug().to_string();
        say(&mut socket, 1, format!("[{channel}:{data}]").as_bytes()).await;
    }
}

async fn keys_and_sizes_go_through_a_raw_terminal() {
    let daemon = Daemon::start(mirror).await;
    let mut terminal = Terminal::start(tripod(&daemon.socket(), &["exec", "-it", "web", "sh"]), 91, 37);
    terminal.sees(r#"[4:{\"Width\":91,\"Height\":37}]"#).await;
    let asked = daemon.state.lock().unwrap().exec.take().unwrap();
    assert_eq!((asked.stdin, asked.tty, asked.stdout, asked.stderr), (true, true, true, false));
    assert_ne!(terminal.modes(), terminal.before);
    // Ctrl-C, Ctrl-D and Ctrl-Z are keys like others, and nothing is echoed here.
    terminal.type_keys(b"\x03");
    terminal.sees(r"[0:\u{3}]").await;
    terminal.type_keys(b"\x04");
    terminal.sees(r"[0:\u{4}]").await;
    terminal.type_keys(b"\x1a");
    terminal.sees(r"[0:\u{1a}]").await;
    terminal.resize(120, 50);
    terminal.sees(r#"[4:{\"Width\":120,\"Height\":50}]"#).await;
    assert!(!terminal.shown().contains("^C"), "{}", terminal.shown());
    terminal.type_keys(b"q");
    assert_eq!(terminal.ends().await, 9);
    assert_eq!(terminal.modes(), terminal.before);
}

async fn the_terminal_is_restored_after_a_break() {
    let daemon = Daemon::start(|mut socket: Socket| async move {
        say(&mut socket, 1, b"ready").await;
        hear(&mut socket).await;
        hear(&mut socket).await;
    })
    .await;
    let mut terminal = Terminal::start(tripod(&daemon.socket(), &["exec", "-it", "web", "sh"]), 80, 25);
    terminal.sees("ready").await;
    terminal.type_keys(b"x");
    assert_eq!(terminal.ends().await, 125);
    assert_eq!(terminal.modes(), terminal.before);
    // The message begins its own line at the left, so the terminal was restored before it.
    terminal.sees("tripod: exec in web: the session broke off").await;
}

async fn the_terminal_is_restored_after_a_signal() {
    let daemon = Daemon::start(mirror).await;
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let mut terminal = Terminal::start(tripod(&daemon.socket(), &["exec", "-it", "web", "sh"]), 80, 25);
        terminal.sees("ready").await;
        assert_ne!(terminal.modes(), terminal.before);
        terminal.signal(signal);
        assert_eq!(terminal.ends().await, code);
        assert_eq!(terminal.modes(), terminal.before);
    }
}

async fn a_stopped_session_goes_on_raw() {
    let daemon = Daemon::start(mirror).await;
    let mut terminal = Terminal::start(tripod(&daemon.socket(), &["exec", "-it", "web", "sh"]), 80, 25);
    terminal.sees("ready").await;
    terminal.signal(Signal::STOP);
    terminal.resize(81, 26);
    terminal.signal(Signal::CONT);
    terminal.sees(r#"[4:{\"Width\":81,\"Height\":26}]"#).await;
    terminal.type_keys(b"q");
    assert_eq!(terminal.ends().await, 9);
}

async fn detach_keys_leave_a_container_running() {
    let daemon = Daemon::start(mirror).await;
    daemon.state.lock().unwrap().terminal = true;
    let mut terminal = Terminal::start(tripod(&daemon.socket(), &["attach", "-i", "web"]), 80, 25);
    terminal.sees("ready").await;
    let asked = daemon.state.lock().unwrap().attach.take().unwrap();
    assert_eq!((asked.stdin, asked.tty, asked.stderr), (true, true, false));
    // A beginning of the keys goes on when something else follows.
    terminal.type_keys(b"\x10x");
    terminal.sees(r"[0:\u{10}x]").await;
    terminal.type_keys(b"\x10");
    tokio::time::sleep(Duration::from_millis(50)).await;
    terminal.type_keys(b"\x11");
    assert_eq!(terminal.ends().await, 0);
    assert_eq!(terminal.modes(), terminal.before);
    terminal.sees("left web running").await;
    assert!(!terminal.shown().contains("[255"), "input was ended: {}", terminal.shown());
}

async fn detach_keys_can_be_chosen() {
    let daemon = Daemon::start(mirror).await;
    let command = tripod(&daemon.socket(), &["attach", "-it", "--detach-keys", "~,.", "web"]);
    daemon.state.lock().unwrap().terminal = true;
    let mut terminal = Terminal::start(command, 80, 25);
    terminal.sees("ready").await;
    terminal.type_keys(b"\x10\x11");
    terminal.sees(r"[0:\u{10}\u{11}]").await;
    terminal.type_keys(b"~.");
    assert_eq!(terminal.ends().await, 0);
}

async fn attach_without_input_leaves_the_terminal_alone() {
    let daemon = Daemon::start(mirror).await;
    daemon.state.lock().unwrap().terminal = true;
    let mut terminal = Terminal::start(tripod(&daemon.socket(), &["attach", "web"]), 80, 25);
    terminal.sees("ready").await;
    assert_eq!(terminal.modes(), terminal.before);
    // Ctrl-C is a signal of this side then.
    terminal.type_keys(b"\x03");
    assert_eq!(terminal.ends().await, 130);
}

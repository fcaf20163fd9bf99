//! `tripod exec`, `attach`, `port-forward` and `logs -f` as a person uses them, over a daemon that may be restarted.

use std::{
    env, fs,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};
use tripod_cri_api::v1::ReopenContainerLogRequest;
use tripod_tests::{Cri, Node, Server, eventually, host_pod, pod, processes, shell, tests, tripod, with_input, within};

tests![
    a_command_is_like_one_here,
    a_command_has_a_terminal,
    a_command_ends_with_its_session,
    sessions_say_that_the_daemon_was_restarted,
    an_attachment_ends_with_its_container,
    a_terminal_is_attached_to_and_left,
    ports_lead_into_the_pod_across_a_restart,
    a_log_is_followed_across_renamings_and_a_restart,
];

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command to its end, with all of its input.
async fn run(arguments: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    with_input(tripod(arguments), input).await
}

/// A command that goes on, and the lines that it says.
fn start(arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = tripod(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    within("a line", LIMIT, lines.next_line()).await.unwrap().expect("a line")
}

/// The end of a command that went on: its exit code, and what it has said about errors.
async fn ended(child: Child) -> (i32, String) {
    let Output { status, stderr, .. } = within("the end", LIMIT, child.wait_with_output()).await.unwrap();
    (status.code().expect("an exit code"), String::from_utf8_lossy(&stderr).into_owned())
}

async fn running(node: &mut Node, script: &str) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("web", script)).await.unwrap();
    (cri, id)
}

/// The program at a terminal of 99 columns and 33 rows, which says its exit code and then the modes of the terminal.
struct Screen {
    /// script (Debian: bsdutils) gives it one.
    script: Child,
    shown: String,
}

impl Screen {
    fn start(arguments: &str) -> Self {
        let program = env::var("TRIPOD_BIN").expect("the program under test");
        let line = format!("stty rows 33 cols 99; {program} {arguments}; echo code $?; stty -a");
        let mut command = Command::new("script");
        command.args(["--quiet", "--echo", "never", "--return", "--command", &line, "/dev/null"]);
        command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self { script: command.spawn().expect("script (Debian: bsdutils)"), shown: String::new() }
    }

    async fn types(&mut self, keys: &[u8]) {
        self.script.stdin.as_mut().unwrap().write_all(keys).await.unwrap();
    }

    /// Waits until a text was shown.
    async fn sees(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let more = tokio::time::timeout(LIMIT, self.more()).await;
            assert!(more.is_ok_and(|read| read > 0), "{text:?} was not shown, but {:?}", self.shown);
        }
    }

    /// Takes what is shown already.
    async fn looks(&mut self) {
        while tokio::time::timeout(Duration::from_millis(10), self.more()).await.is_ok_and(|read| read > 0) {}
    }

    async fn more(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let read = self.script.stdout.as_mut().unwrap().read(&mut buffer).await.unwrap();
        self.shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
        read
    }
}

async fn a_command_is_like_one_here(node: &mut Node) {
    let (_cri, id) = running(node, "sleep 1000").await;
    let (code, out, err) = run(&["exec", "web", "/bin/sh", "-c", "echo out; echo err >&2; exit 7"], b"").await;
    assert_eq!((code, &out[..], err.as_str()), (7, &b"out\n"[..], "err\n"));
    // By the beginning of its ID; a program is looked for along PATH; without -i there is no input.
    assert_eq!(run(&["exec", &id[..6], "cat"], b"not for it").await, (0, Vec::new(), String::new()));
    // Every byte there is, both ways, to the end of the input and not beyond.
    let data: Vec<u8> = (0..20_000_000_u32).map(|number| (number ^ (number >> 8)) as u8).collect();
    let (code, out, err) = run(&["exec", "-i", "web", "cat"], &data).await;
    assert!(code == 0 && out == data, "{} of {} bytes came back: {err}", out.len(), data.len());
    assert_eq!(run(&["exec", "web", "/bin/sh", "-c", "kill -9 $$"], b"").await.0, 137);
    let (code, _, err) = run(&["exec", "web", "no-such-program"], b"").await;
    assert!(code == 127 && err.contains("no-such-program"), "{code}: {err}");
    let (code, _, err) = run(&["exec", "nobody", "ls"], b"").await;
    assert!(code == 125 && err.contains("no container \"nobody\""), "{err}");
}

async fn a_command_has_a_terminal(node: &mut Node) {
    let (_cri, _) = running(node, "sleep 1000").await;
    let mut screen = Screen::start("exec -it web /bin/sh");
    // The size comes right after the start.
    screen.types(b"until [ \"$(stty size)\" = '33 99' ]; do usleep 10000; done; tty; echo si''ze\r").await;
    screen.sees("/dev/pts/").await;
    screen.sees("size\r\n").await;
    // Ctrl-C is for the command there.
    screen.types(b"sleep 4320 || true; echo inter''rupted\r").await;
    eventually("sleep", LIMIT, async || (!processes(&["sleep", "4320"]).is_empty()).then_some(())).await;
    screen.types(b"\x03").await;
    screen.types(b"echo go''es on; exit 9\r").await;
    screen.sees("goes on\r\n").await;
    screen.sees("code 9\r\n").await;
    // This terminal is as it was.
    screen.sees(" icanon").await;
    screen.sees(" echo ").await;
}

async fn a_terminal_is_attached_to_and_left(node: &mut Node) {
    let mut config = shell("web", "while read line; do echo \"got $line in $(stty size)\"; done");
    (config.stdin, config.tty) = (true, true);
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &config).await.unwrap();
    for word in ["one", "two"] {
        let mut screen = Screen::start("attach -i web");
        // What was said before was said to nobody: until the size is known here, it is asked for again.
        let known = format!("got {word} in 33 99\r\n");
        while !screen.shown.contains(&known) {
            screen.types(format!("{word}\r").as_bytes()).await;
            screen.sees(&format!("got {word}")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            screen.looks().await;
        }
        screen.types(b"\x10\x11").await;
        screen.sees("left web running").await;
        screen.sees("code 0\r\n").await;
        screen.sees(" icanon").await;
    }
    cri.stop(&id, 0).await.unwrap();
}

async fn a_command_ends_with_its_session(node: &mut Node) {
    let (_cri, _) = running(node, "sleep 1000").await;
    let gone = async || {
        eventually("the end of the command", LIMIT, async || processes(&["sleep", "4321"]).is_empty().then_some(()))
            .await;
    };
    let (code, _, err) = run(&["exec", "--timeout", "1", "web", "sleep", "4321"], b"").await;
    assert!(code == 124 && err.contains("did not end within 1 s"), "{code}: {err}");
    gone().await;
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let (child, mut lines) = start(&["exec", "web", "/bin/sh", "-c", "echo ready; exec sleep 4321"]);
        assert_eq!(line(&mut lines).await, "ready");
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
        assert_eq!(ended(child).await.0, code);
        gone().await;
    }
    // Nobody reads what it says.
    let (child, mut lines) = start(&["exec", "web", "yes", "4321"]);
    assert_eq!(line(&mut lines).await, "4321");
    drop(lines);
    assert_eq!(ended(child).await.0, 141);
    eventually("the end of yes", LIMIT, async || processes(&["yes", "4321"]).is_empty().then_some(())).await;
}

async fn sessions_say_that_the_daemon_was_restarted(node: &mut Node) {
    let (_cri, _) = running(node, "sleep 1; while :; do echo tick; usleep 100000; done").await;
    let (exec, mut said) = start(&["exec", "web", "/bin/sh", "-c", "echo ready; sleep 4322"]);
    let (attach, mut heard) = start(&["attach", "web"]);
    assert_eq!((line(&mut said).await, line(&mut heard).await), ("ready".into(), "tick".into()));
    node.restart().await;
    let (code, err) = ended(exec).await;
    assert!(code == 125 && err.contains("the session broke off"), "{code}: {err}");
    let (code, err) = ended(attach).await;
    assert!(code != 0 && err.contains("The container runs on: `tripod attach web`"), "{code}: {err}");
    // So it does.
    let (_attach, mut heard) = start(&["attach", "web"]);
    assert_eq!(line(&mut heard).await, "tick");
}

async fn an_attachment_ends_with_its_container(node: &mut Node) {
    let mut config =
        shell("web", "while read line; do echo \"got $line\"; [ \"$line\" = bye ] && exit 5; done; exit 6");
    (config.stdin, config.stdin_once) = (true, true);
    let cri = node.ready().await;
    let (pod, _) = cri.run_in_pod(&host_pod("main"), &config).await.unwrap();
    let (mut child, mut lines) = start(&["attach", "-i", "web"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    assert_eq!(line(&mut lines).await, "got hello");
    stdin.write_all(b"bye\n").await.unwrap();
    assert_eq!(line(&mut lines).await, "got bye");
    assert_eq!(ended(child).await, (5, String::new()));
    let (code, _, err) = run(&["attach", "web"], b"").await;
    assert!(code != 0 && err.contains("does not run"), "{code}: {err}");
    // The end of the input ends that of a container made for one session.
    config.metadata.as_mut().unwrap().name = "once".to_owned();
    cri.run(&pod, &host_pod("main"), &config).await.unwrap();
    let (code, out, err) = run(&["attach", "-i", "once"], b"a\nb\n").await;
    assert_eq!((code, &out[..], err.as_str()), (6, &b"got a\ngot b\n"[..], ""));
    let (code, _, err) = run(&["attach", "-t", "once"], b"").await;
    assert!(code != 0 && err.contains("leave -t out"), "{code}: {err}");
}

/// Sends this, ends that way, and reads to the end.
async fn exchange(address: &str, data: &[u8]) -> Vec<u8> {
    let work = async {
        let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
        let mut answer = Vec::new();
        let send = async {
            to.write_all(data).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(send, from.read_to_end(&mut answer));
        read.unwrap();
        answer
    };
    within("an exchange", LIMIT, work).await
}

async fn ports_lead_into_the_pod_across_a_restart(node: &mut Node) {
    let cri = node.ready().await;
    cri.run_in_pod(&pod("web"), &shell("web", "exec sleep 4323")).await.unwrap();
    let process = async || processes(&["sleep", "4323"]).first().copied();
    let pid = eventually("the container", LIMIT, process).await;
    let _server = Server::start(pid, &[("127.0.0.1:7001", "cat; echo end"), ("[::1]:7002", "wc -c")]).await;
    let (child, mut lines) = start(&["port-forward", "web", "7001", ":7002", ":7003"]);
    let mut forwards = Vec::new();
    for _ in 0..6 {
        forwards.push(line(&mut lines).await);
    }
    assert_eq!(forwards[0], "Forwarding from 127.0.0.1:7001 -> 7001");
    assert_eq!(forwards[1], "Forwarding from [::1]:7001 -> 7001");
    let address = |at: usize| forwards[at].split(' ').nth(2).unwrap().to_owned();
    let data = vec![b'x'; 3_000_000];
    assert_eq!(exchange(&address(3), &data).await, b"3000000\n");
    let all = (0..50).map(|number| async move {
        let data = vec![number; 20_000];
        assert!(exchange("127.0.0.1:7001", &data).await == [&data[..], b"end\n"].concat());
    });
    futures::future::join_all(all).await;
    // Nobody listens there, and it says so.
    assert_eq!(exchange(&address(4), b"").await, b"");
    // A connection that is open is lost, and the next one is not.
    let mut open = TcpStream::connect("[::1]:7001").await.unwrap();
    open.write_all(b"x").await.unwrap();
    assert_eq!(open.read(&mut [0; 8]).await.unwrap(), 1);
    node.restart().await;
    assert!(!matches!(within("the end", LIMIT, open.read(&mut [0; 8])).await, Ok(1..)));
    assert_eq!(exchange("[::1]:7001", b"again ").await, b"again end\n");
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let (code, err) = ended(child).await;
    assert!(code == 0 && err.contains("port 7003") && err.contains("the session broke off"), "{code}: {err}");
}

async fn a_log_is_followed_across_renamings_and_a_restart(node: &mut Node) {
    // It waits for the test on its way: it must still run when the daemon is back.
    let script = "for i in $(seq 0 79); do seq $((i*50+1)) $((i*50+50)); usleep 20000; \
                  [ $i -ne 60 ] || until [ -e /tmp/go ]; do usleep 20000; done; done; echo done >&2";
    let (cri, id) = running(node, script).await;
    let path = cri.status(&id).await.unwrap().log_path;
    let (child, mut lines) = start(&["logs", "-f", "web"]);
    let mut out = vec![line(&mut lines).await];
    let reopen = async |cri: &Cri| {
        cri.runtime().reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
    };
    for round in 0..6 {
        fs::rename(&path, format!("{path}.20260101-00000{round}")).unwrap();
        reopen(&cri).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cri = node.restart().await;
    fs::rename(&path, format!("{path}.20260101-000009")).unwrap();
    reopen(&cri).await;
    // The container's end may be quicker than that of the command.
    cri.exec(&id, &["touch", "/tmp/go"], 20).await.unwrap();
    while let Some(line) = within("a line, or the end", LIMIT, lines.next_line()).await.unwrap() {
        out.push(line);
    }
    let (code, err) = ended(child).await;
    let expected: String = (1..=4000).map(|number| format!("{number}\n")).collect();
    assert!(code == 0 && out.join("\n") + "\n" == expected, "{code}: {} lines", out.len());
    assert!(err.ends_with("done\n"), "{err}");
    // The renamed files are still part of it.
    assert!(run(&["logs", "web"], b"").await.1 == expected.as_bytes());
    assert_eq!(run(&["logs", "--tail", "3", "web"], b"").await.1, b"3999\n4000\n");
}

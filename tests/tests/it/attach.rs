//! Talking and listening to running containers (contract: line 26).

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;
use tripod_cri_api::v1::{ContainerConfig, ContainerState};
use tripod_tests::{
    Client, Cri, Node, Sizes, Wanted, crictl_run, eventually, host_pod, log_text, peer, python, shell, tests,
    transports, within,
};

tests![
    a_client_hears_what_comes_from_now_on,
    many_clients_hear_the_same,
    what_is_typed_reaches_the_container,
    input_stays_open_for_the_next_client,
    input_that_is_open_once_ends_with_its_client,
    a_terminal_can_be_attached_to,
    a_client_that_does_not_read_blocks_nobody,
    a_session_ends_with_its_container,
    a_container_that_has_ended_cannot_be_attached_to,
    python_attaches,
    crictl_attaches,
];

/// Counts for ever, a number a line, a hundred a second.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done";

/// Says each line that it is told.
const PARROT: &str = "while read line; do echo \"got $line\"; [ \"$line\" = bye ] && exit 3; done; echo end";

async fn running(node: &mut Node, config: &ContainerConfig) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), config).await.unwrap();
    (cri, id)
}

async fn log(cri: &Cri, id: &str) -> String {
    log_text(&fs::read_to_string(cri.status(id).await.unwrap().log_path).unwrap())
}

/// The numbers on whole lines.
fn numbers(text: &str) -> Vec<u64> {
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole
        .lines()
        .map(|line| line.trim().parse().unwrap_or_else(|_| panic!("no number: {line:?} in {text:?}")))
        .collect()
}

fn consecutive(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

async fn a_client_hears_what_comes_from_now_on(node: &mut Node) {
    let (cri, id) = running(node, &shell("main", COUNTER)).await;
    eventually("some output", Duration::from_secs(40), async || log(&cri, &id).await.contains("20\n").then_some(()))
        .await;
    for transport in transports() {
        let url = cri.attach_url(&id, Wanted::OUTPUT).await.unwrap();
        let before = *numbers(&log(&cri, &id).await).last().unwrap();
        let mut session = Client::new(transport, Wanted::OUTPUT).start(&url);
        session.read_until("\n").await;
        session.forget();
        let text = session.read_until("0\n").await;
        session.kill().await;
        let heard = numbers(text.split_once('\n').unwrap().1);
        assert!(heard.first().is_none_or(|first| *first > before) && consecutive(&heard), "{transport}: {heard:?}");
    }
    assert!(consecutive(&numbers(&log(&cri, &id).await)));
}

async fn many_clients_hear_the_same(node: &mut Node) {
    let (cri, id) = running(node, &shell("main", COUNTER)).await;
    let mut sessions = Vec::new();
    for transport in transports().iter().cycle().take(6) {
        let url = cri.attach_url(&id, Wanted::OUTPUT).await.unwrap();
        sessions.push(Client::new(transport, Wanted::OUTPUT).start(&url));
    }
    for session in &mut sessions {
        session.read_until("\n").await;
    }
    // Whoever leaves disturbs nobody.
    sessions.pop().unwrap().kill().await;
    let _ = sessions.pop().unwrap();
    let last = *numbers(&log(&cri, &id).await).last().unwrap();
    let goal = format!("\n{}\n", last + 50);
    for mut session in sessions {
        let heard = numbers(&session.read_until(&goal).await);
        assert!(consecutive(&heard) && heard.len() > 50, "{heard:?}");
    }
    assert!(consecutive(&numbers(&log(&cri, &id).await)));
}

fn parrot() -> ContainerConfig {
    ContainerConfig { stdin: true, ..shell("main", PARROT) }
}

async fn what_is_typed_reaches_the_container(node: &mut Node) {
    let (cri, id) = running(node, &parrot()).await;
    let mut sessions = Vec::new();
    for transport in transports() {
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        session.write(&format!("by {transport}\n")).await;
        session.read_until(&format!("got by {transport}\n")).await;
        sessions.push(session);
    }
    let last = sessions.last_mut().unwrap();
    last.write("bye\n").await;
    for session in sessions {
        assert!(session.ended().await.text().ends_with("got bye\n"));
    }
    assert_eq!(cri.exited(&id).await.exit_code, 3);
}

async fn input_stays_open_for_the_next_client(node: &mut Node) {
    let (cri, id) = running(node, &parrot()).await;
    for transport in transports() {
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        session.write("one\n").await;
        session.read_until("got one\n").await;
        // A client that has said all leaves with success; the container does not see the end of its input.
        let outcome = within("the end of the session", Duration::from_secs(40), session.end()).await;
        assert_eq!((outcome.code, outcome.text().as_str()), (0, "got one\n"), "{transport}: {}", outcome.error);
    }
    assert!(!log(&cri, &id).await.contains("end"));
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
}

async fn input_that_is_open_once_ends_with_its_client(node: &mut Node) {
    let cri = node.ready().await;
    let pod = host_pod("main");
    let sandbox = cri.run_pod(&pod).await.unwrap();
    for transport in transports() {
        let config = ContainerConfig { stdin: true, stdin_once: true, ..shell(&format!("by-{transport}"), PARROT) };
        let id = cri.run(&sandbox, &pod, &config).await.unwrap();
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        session.write("one\n").await;
        session.read_until("got one\n").await;
        // Output goes on after that.
        assert_eq!(session.end().await.text(), "got one\nend\n", "{transport}");
        assert_eq!(cri.exited(&id).await.exit_code, 0);
    }
}

async fn a_terminal_can_be_attached_to(node: &mut Node) {
    let script = "trap 'echo size $(stty size)' WINCH; echo ready; \
                  while [ ! -e /tmp/go ]; do usleep 20000; done; read line; echo \"got $line\"; exit 4";
    let config = ContainerConfig { stdin: true, tty: true, ..shell("main", script) };
    let (cri, id) = running(node, &config).await;
    let ready = async || log(&cri, &id).await.contains("ready").then_some(());
    eventually("that it hears of sizes", Duration::from_secs(40), ready).await;
    let mut sessions = Vec::new();
    for (number, transport) in (1..).zip(transports()) {
        let sizes = Sizes::default();
        let url = cri.attach_url(&id, Wanted::TERMINAL).await.unwrap();
        let mut session = Client::new(transport, Wanted::TERMINAL).sizes(&sizes).start(&url);
        sizes.set(100 + number, 30);
        session.read_until(&format!("size 30 {}\r\n", 100 + number)).await;
        sessions.push((session, sizes));
    }
    cri.sh(&id, "touch /tmp/go").await;
    let (first, _) = &mut sessions[0];
    first.write("word\n").await;
    for (session, _) in sessions {
        assert!(session.ended().await.text().ends_with("word\r\ngot word\r\n"));
    }
    assert_eq!(cri.exited(&id).await.exit_code, 4);
}

/// Others wait for the slowest client.
async fn a_client_that_does_not_read_blocks_nobody(node: &mut Node) {
    if peer::chosen() {
        return;
    }
    let script = "read line; seq 1000000; echo end";
    let (cri, id) = running(node, &ContainerConfig { stdin: true, ..shell("main", script) }).await;
    let mut sessions = Vec::new();
    for transport in transports() {
        let url = cri.attach_url(&id, Wanted::OUTPUT).await.unwrap();
        let session = Client::new(transport, Wanted::OUTPUT).start(&url);
        // Wait for the connection, then let nothing out of it any more.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let pid = Pid::from_raw(session.pid().cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        sessions.push((session, pid));
    }
    let url = cri.attach_url(&id, Wanted { stdin: true, ..Wanted::NOTHING }).await.unwrap();
    let mut talker = Client::new("spdy", Wanted { stdin: true, ..Wanted::NOTHING }).start(&url);
    talker.write("\n").await;
    let status = within("the container", Duration::from_secs(60), cri.exited(&id)).await;
    assert_eq!(status.exit_code, 0);
    let log = log(&cri, &id).await;
    assert!(
        log.ends_with("999999\n1000000\nend\n") && log.lines().count() == 1_000_001,
        "{} lines",
        log.lines().count()
    );
    for (session, pid) in sessions {
        kill_process(pid, Signal::CONT).unwrap();
        session.kill().await;
    }
    talker.kill().await;
}

async fn a_session_ends_with_its_container(node: &mut Node) {
    let cri = node.ready().await;
    let pod = host_pod("main");
    let sandbox = cri.run_pod(&pod).await.unwrap();
    for transport in transports() {
        for (how, code) in [("stopped", 137), ("exits", 5)] {
            let script = "echo ready; while [ ! -e /tmp/go ]; do usleep 20000; echo tick; done; echo last; exit 5";
            let config = shell(&format!("{how}-{transport}"), script);
            let id = cri.run(&sandbox, &pod, &config).await.unwrap();
            let url = cri.attach_url(&id, Wanted::OUTPUT).await.unwrap();
            let mut session = Client::new(transport, Wanted::OUTPUT).start(&url);
            session.read_until("tick\n").await;
            if how == "stopped" {
                cri.stop(&id, 0).await.unwrap();
            } else {
                // The container's end may be quicker than that of the command.
                cri.exec(&id, &["touch", "/tmp/go"], 5).await.unwrap();
            }
            let outcome = within("the end of the session", Duration::from_secs(40), session.ended()).await;
            assert!(how == "stopped" || outcome.text().ends_with("tick\nlast\n"), "{transport}: {:?}", outcome.text());
            assert_eq!(outcome.code, 0, "{transport}: an attachment has no exit code: {}", outcome.error);
            assert_eq!(cri.exited(&id).await.exit_code, code);
        }
    }
}

async fn a_container_that_has_ended_cannot_be_attached_to(node: &mut Node) {
    let (cri, id) = running(node, &shell("main", "true")).await;
    cri.exited(&id).await;
    let error = cri.attach_url(&id, Wanted::OUTPUT).await.unwrap_err();
    assert!(error.code() == Code::FailedPrecondition || peer::chosen(), "{error}");
    // Nor one that ends between the two calls.
    let config = host_pod("second");
    let pod = cri.run_pod(&config).await.unwrap();
    for transport in transports() {
        let id = cri.run(&pod, &config, &shell(transport, "sleep 1000")).await.unwrap();
        let url = cri.attach_url(&id, Wanted::OUTPUT).await.unwrap();
        cri.stop(&id, 0).await.unwrap();
        let client = Client::new(transport, Wanted::OUTPUT);
        let outcome = within("the session", Duration::from_secs(40), client.run(&url, b"")).await;
        let told = outcome.code == -1 && outcome.error.contains(&id);
        assert!(outcome.text().is_empty() && (told || peer::chosen()), "{transport}: {outcome:?}");
    }
}

async fn python_attaches(node: &mut Node) {
    let (cri, id) = running(node, &parrot()).await;
    let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
    let answer = python(&["session", "--protocol", "v4.channel.k8s.io", "--stdin", &url], b"one\nbye\n").await.unwrap();
    assert_eq!(answer["stdout"]["text"], "got one\ngot bye\n", "{answer}");
    assert_eq!(cri.exited(&id).await.exit_code, 3);
}

async fn crictl_attaches(node: &mut Node) {
    let cri = node.ready().await;
    let pod = host_pod("main");
    let sandbox = cri.run_pod(&pod).await.unwrap();
    for transport in if peer::chosen() { &["spdy"][..] } else { &["spdy", "websocket"] } {
        let config = ContainerConfig { stdin: true, stdin_once: true, ..shell(transport, PARROT) };
        let id = cri.run(&sandbox, &pod, &config).await.unwrap();
        let arguments = ["attach", "--transport", transport, "-i", &id];
        let (code, stdout, stderr) = crictl_run(&node.socket(), &arguments, b"one\nbye\n").await;
        assert_eq!((code, stdout.as_str()), (0, "got one\ngot bye\n"), "{transport}: {stderr}");
        assert_eq!(cri.exited(&id).await.exit_code, 3);
    }
}

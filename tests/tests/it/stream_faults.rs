//! Clients, containers and daemons that vanish in the midst of a session: what was begun ends, and nothing is left.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tripod_cri_api::v1::{ContainerConfig, ContainerState};
use tripod_tests::{
    Client, Cri, Forward, Node, Server, Session, Wanted, eventually, host_pod, pod, processes, shell, tests,
    transports, within,
};

tests![
    a_command_ends_with_its_client,
    a_command_on_a_terminal_hangs_up_with_its_client,
    an_attachment_ends_with_its_client,
    connections_end_with_their_client,
    clients_that_vanish_at_any_point_leave_nothing,
    a_client_that_goes_to_sleep_holds_up_nobody,
    a_session_ends_with_its_container,
    sessions_end_with_their_daemon,
    sessions_end_when_their_daemon_is_asked_to_end,
    a_pod_that_is_stopped_ends_its_forwarding,
];

/// What is still there of a command after its client has gone has this long, by the daemon's own limit of ten seconds.
const GRACE: Duration = Duration::from_secs(40);
/// What ends before that limit.
const SOON: Duration = Duration::from_secs(9);
/// What has to begin, or to end for another reason.
const LATER: Duration = Duration::from_secs(40);

/// A container whose first process reaps orphans.
pub(crate) async fn running(node: &mut Node) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "while :; do sleep 0.2; done")).await.unwrap();
    // The first command makes what is kept for all.
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/true"], Wanted::ALL).await.unwrap();
        assert_eq!(Client::new(transport, Wanted::ALL).run(&url, b"").await.code, 0);
    }
    (cri, id)
}

async fn gone(words: &[&str], limit: Duration) {
    eventually(&format!("the end of {words:?}"), limit, async || processes(words).is_empty().then_some(())).await;
}

async fn there(words: &[&str]) {
    eventually(&format!("{words:?}"), LATER, async || (!processes(words).is_empty()).then_some(())).await;
}

async fn exec(cri: &Cri, id: &str, transport: &str, script: &str, wanted: Wanted) -> Session {
    let url = cri.exec_url(id, &["/bin/sh", "-c", script], wanted).await.unwrap();
    Client::new(transport, wanted).start(&url)
}

async fn a_command_ends_with_its_client(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = node.holdings().await;
    for transport in transports() {
        // One that reads sees the end of its input, one that writes has nobody to write to.
        for script in ["echo ready; cat; true", "while echo ready; do usleep 1000; done"] {
            let mut session = exec(&cri, &id, transport, script, Wanted::ALL).await;
            session.read_until("ready\n").await;
            session.kill().await;
            gone(&["/bin/sh", "-c", script], SOON).await;
        }
    }
    // One that does neither is killed after a while, and so is what it has started.
    let mut sessions = Vec::new();
    for transport in transports() {
        let script = "echo ready; sleep 71003 & trap '' HUP TERM; sleep 71003";
        let mut session = exec(&cri, &id, transport, script, Wanted::OUTPUT).await;
        session.read_until("ready\n").await;
        sessions.push(session);
    }
    there(&["sleep", "71003"]).await;
    for session in sessions {
        session.kill().await;
    }
    gone(&["sleep", "71003"], GRACE).await;
    node.settled(&before).await;
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
}

async fn a_command_on_a_terminal_hangs_up_with_its_client(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = node.holdings().await;
    for transport in transports() {
        let mut session = exec(&cri, &id, transport, "echo ready; sleep 72001", Wanted::TERMINAL).await;
        session.read_until("ready\r\n").await;
        there(&["sleep", "72001"]).await;
        session.kill().await;
        gone(&["sleep", "72001"], SOON).await;
    }
    let mut session = exec(&cri, &id, "spdy", "trap '' HUP; echo ready; sleep 72002", Wanted::TERMINAL).await;
    session.read_until("ready\r\n").await;
    there(&["sleep", "72002"]).await;
    session.kill().await;
    gone(&["sleep", "72002"], GRACE).await;
    node.settled(&before).await;
}

async fn an_attachment_ends_with_its_client(node: &mut Node) {
    let cri = node.ready().await;
    let script = "i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done";
    let config = ContainerConfig { stdin: true, ..shell("main", script) };
    let (_, id) = cri.run_in_pod(&host_pod("main"), &config).await.unwrap();
    let attach = async |transport: &str| {
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        session.read_until("\n").await;
        session
    };
    attach("spdy").await.kill().await;
    let before = node.holdings().await;
    for transport in transports() {
        for _ in 0..5 {
            attach(transport).await.kill().await;
        }
    }
    node.settled(&before).await;
    // The next client is served.
    attach("spdy").await.kill().await;
}

async fn connections_end_with_their_client(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, _) = cri.run_in_pod(&pod("main"), &shell("main", "exec sleep 73001")).await.unwrap();
    let pid = eventually("the container", LATER, async || processes(&["sleep", "73001"]).first().copied()).await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo ready; exec cat")]).await;
    let mut before = None;
    for transport in ["spdy"].iter().chain(transports()) {
        let url = cri.forward_url(&pod, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = forward.connect(0).await;
            let mut greeting = [0; 6];
            within("a greeting", LATER, stream.read_exact(&mut greeting)).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            streams.push(stream);
        }
        there(&["cat"]).await;
        forward.kill().await;
        gone(&["cat"], SOON).await;
        match &before {
            None => before = Some(node.holdings().await),
            Some(before) => node.settled(before).await,
        }
    }
}

/// Sessions of each kind are cut off a little later each time, from before the client has connected to well within.
async fn clients_that_vanish_at_any_point_leave_nothing(node: &mut Node) {
    let cri = node.ready().await;
    let script = "while :; do echo tick; sleep 0.05; done";
    let config = ContainerConfig { stdin: true, ..shell("main", script) };
    let (sandbox, id) = cri.run_in_pod(&pod("main"), &config).await.unwrap();
    let pid = eventually("the container", LATER, async || processes(&["-c", script]).first().copied()).await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo ready; exec cat")]).await;
    // What is made with the first of each kind is kept for all.
    for transport in transports().iter().take(2) {
        let url = cri.exec_url(&id, &["/bin/true"], Wanted::ALL).await.unwrap();
        assert_eq!(Client::new(transport, Wanted::ALL).run(&url, b"").await.code, 0);
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        session.read_until("tick").await;
        session.kill().await;
    }
    let before = node.holdings().await;
    for delay in (0..60).step_by(3).map(Duration::from_millis) {
        for transport in transports().iter().take(2) {
            let mut sessions = vec![
                exec(&cri, &id, transport, "echo ready; cat", Wanted::ALL).await,
                exec(&cri, &id, transport, "echo ready; cat", Wanted::TERMINAL).await,
                exec(&cri, &id, transport, "cat /dev/zero", Wanted::OUTPUT).await,
            ];
            let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
            sessions.push(Client::new(transport, Wanted::ALL).start(&url));
            tokio::time::sleep(delay).await;
            for session in sessions {
                session.kill().await;
            }
        }
        // Half a request, or the beginning of a good one.
        let url = cri.forward_url(&sandbox, &[81]).await.unwrap();
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let request = format!(
            "POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n\u{80}"
        );
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let length = request.len() * usize::try_from(delay.as_millis()).unwrap() / 57;
        stream.write_all(&request.as_bytes()[..length]).await.unwrap();
        drop(stream);
    }
    gone(&["cat"], GRACE).await;
    gone(&["/bin/sh", "-c", "echo ready; cat"], GRACE).await;
    gone(&["cat", "/dev/zero"], GRACE).await;
    node.settled(&before).await;
}

/// It neither reads nor closes: its command waits, and all else goes on.
async fn a_client_that_goes_to_sleep_holds_up_nobody(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = node.holdings().await;
    let mut sleeping = Vec::new();
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/cat", "/dev/zero"], Wanted::OUTPUT).await.unwrap();
        let session = Client::new(transport, Wanted::OUTPUT).counting().start(&url);
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill_process(Pid::from_raw(session.pid().cast_signed()).unwrap(), Signal::STOP).unwrap();
        sleeping.push(session);
    }
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/echo", "fine"], Wanted::OUTPUT).await.unwrap();
        let outcome = within("a session", LATER, Client::new(transport, Wanted::OUTPUT).run(&url, b"")).await;
        assert_eq!(outcome.text(), "fine\n", "{transport}: {}", outcome.error);
    }
    assert_eq!(within("a command", LATER, cri.sh(&id, "echo fine")).await, "fine");
    for session in sleeping {
        session.kill().await;
    }
    gone(&["/bin/cat", "/dev/zero"], SOON).await;
    node.settled(&before).await;
}

async fn a_session_ends_with_its_container(node: &mut Node) {
    let (cri, _) = running(node).await;
    let config = host_pod("second");
    let pod = cri.run_pod(&config).await.unwrap();
    for how in ["stopped", "killed"] {
        let id = cri.run(&pod, &config, &shell(how, "trap '' TERM; sleep 74001")).await.unwrap();
        let mut sessions = Vec::new();
        for transport in transports() {
            for wanted in [Wanted::ALL, Wanted::TERMINAL] {
                let mut session = exec(&cri, &id, transport, "echo ready; sleep 74002", wanted).await;
                session.read_until("ready").await;
                sessions.push((session, transport, wanted));
            }
        }
        if how == "stopped" {
            cri.stop(&id, 0).await.unwrap();
        } else {
            for pid in processes(&["sleep", "74001"]) {
                // The container's first process is the shell above.
                let parent = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                let parent: i32 = parent.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
                kill_process(Pid::from_raw(parent).unwrap(), Signal::KILL).unwrap();
            }
        }
        for (session, transport, wanted) in sessions {
            let outcome = within("the end of a session", LATER, session.ended()).await;
            assert!(outcome.code != 0, "{transport}, {wanted:?}: {outcome:?}");
        }
        assert_eq!(cri.exited(&id).await.exit_code, 137);
        gone(&["sleep", "74002"], LATER).await;
    }
}

async fn sessions_end_with_their_daemon(node: &mut Node) {
    ended_with_the_daemon(node, false).await;
}

async fn sessions_end_when_their_daemon_is_asked_to_end(node: &mut Node) {
    ended_with_the_daemon(node, true).await;
}

async fn ended_with_the_daemon(node: &mut Node, politely: bool) {
    let cri = node.ready().await;
    let counter = "i=0; while :; do i=$((i+1)); echo $i; usleep 5000; done";
    let config = ContainerConfig { stdin: true, ..shell("main", counter) };
    let (sandbox, id) = cri.run_in_pod(&pod("main"), &config).await.unwrap();
    let pid = eventually("the container", LATER, async || processes(&["-c", counter]).first().copied()).await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo ready; exec cat")]).await;
    let mut sessions = Vec::new();
    let mut forwards = Vec::new();
    for transport in transports() {
        for (wanted, script) in [
            (Wanted::ALL, "echo ready; sleep 75001"),
            (Wanted::OUTPUT, "while echo ready; do usleep 1000; done"),
            (Wanted::TERMINAL, "echo ready; sleep 75001"),
        ] {
            let mut session = exec(&cri, &id, transport, script, wanted).await;
            session.read_until("ready").await;
            sessions.push(session);
        }
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        session.read_until("\n").await;
        sessions.push(session);
        let url = cri.forward_url(&sandbox, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        let mut stream = forward.connect(0).await;
        let mut greeting = [0; 6];
        within("a greeting", LATER, stream.read_exact(&mut greeting)).await.unwrap();
        forwards.push((forward, stream));
    }
    if politely {
        within("the end of the daemon", LATER, node.stop()).await;
    } else {
        node.kill();
    }
    for session in sessions {
        within("the end of a session", LATER, session.ended()).await;
    }
    for (mut forward, mut stream) in forwards {
        let mut rest = Vec::new();
        within("the end of a connection", LATER, stream.read_to_end(&mut rest)).await.ok();
        within("the end of the forwarding", LATER, forward.error()).await;
    }
    gone(&["sleep", "75001"], GRACE).await;
    gone(&["/bin/sh", "-c", "while echo ready; do usleep 1000; done"], GRACE).await;
    gone(&["cat"], SOON).await;

    let cri = node.start().await;
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    for transport in transports() {
        let mut session = exec(&cri, &id, transport, "echo again; cat", Wanted::ALL).await;
        session.read_until("again\n").await;
        assert_eq!(session.end().await.code, 0, "{transport}");
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).start(&url);
        session.read_until("\n").await;
        session.kill().await;
        let url = cri.forward_url(&sandbox, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        let mut stream = forward.connect(0).await;
        let mut greeting = [0; 6];
        within("a greeting", LATER, stream.read_exact(&mut greeting)).await.unwrap();
        forward.kill().await;
    }
    let log = tripod_tests::log_text(&std::fs::read_to_string(cri.status(&id).await.unwrap().log_path).unwrap());
    let numbers: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "the log has no hole");
}

async fn a_pod_that_is_stopped_ends_its_forwarding(node: &mut Node) {
    let cri = node.ready().await;
    for transport in transports() {
        let (sandbox, _) = cri.run_in_pod(&pod(transport), &shell("main", "exec sleep 76001")).await.unwrap();
        let pid = eventually("the container", LATER, async || processes(&["sleep", "76001"]).first().copied()).await;
        let server = Server::start(pid, &[("127.0.0.1:81", "echo ready; exec cat")]).await;
        let url = cri.forward_url(&sandbox, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        let mut stream = forward.connect(0).await;
        let mut greeting = [0; 6];
        within("a greeting", LATER, stream.read_exact(&mut greeting)).await.unwrap();
        within("the stop", LATER, cri.stop_pod(&sandbox)).await.unwrap();
        drop(server);
        within("the removal", LATER, cri.remove_pod(&sandbox)).await.unwrap();
        // A new connection reaches nobody, least of all the host.
        let mut stream = forward.connect(0).await;
        let mut rest = Vec::new();
        within("the end of a connection", LATER, stream.read_to_end(&mut rest)).await.ok();
        assert_eq!(rest, b"", "{transport}");
        forward.kill().await;
    }
}

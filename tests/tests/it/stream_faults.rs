//! Clients, containers and daemons that vanish in the midst of a session: what was begun ends, and nothing is left.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tripod_cri_api::v1::{ContainerConfig, ContainerState};
use tripod_tests::{
    Client, Cri, Forward, Holdings, Many, Node, Server, Session, Wanted, eventually, host_pod, pod, processes, shell,
    tests, threads, transports, within, zombies,
};

tests![
    a_command_ends_with_its_client,
    a_command_on_a_terminal_hangs_up_with_its_client,
    an_attachment_ends_with_its_client,
    connections_end_with_their_client,
    a_client_that_goes_to_sleep_holds_up_nobody,
    a_session_ends_with_its_container,
    sessions_end_with_their_daemon,
    sessions_end_when_their_daemon_is_asked_to_end,
    a_pod_that_is_stopped_ends_its_forwarding,
    five_hundred_sessions_at_once,
    two_thousand_sessions_one_after_the_other,
];

/// What is still there of a command after its client has gone has this long, by the daemon's own limit of ten seconds.
const GRACE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(5);

/// A container whose first process reaps orphans.
async fn running(node: &mut Node) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "while :; do sleep 0.2; done")).await.unwrap();
    // The first command makes what is kept for all.
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/true"], Wanted::ALL).await.unwrap();
        assert_eq!(Client::new(transport, Wanted::ALL).run(&url, b"").await.code, 0);
    }
    (cri, id)
}

/// What the daemon and all shims hold, once nothing is under way any more.
async fn holdings(node: &Node) -> Holdings {
    let mut last = (Holdings::default(), Instant::now());
    let still = eventually("that nothing is under way", SOON, async || {
        let now = held(node);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(300)).then(|| last.0.clone())
    });
    still.await
}

fn held(node: &Node) -> Holdings {
    let mut pids = shims();
    pids.push(node.daemon().pid());
    Holdings::of(&pids)
}

fn shims() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "tripod-shim")
    })
    .collect()
}

/// Waits until no more is held than before, and no zombie is left.
async fn settled(node: &Node, before: &Holdings) {
    let mut beyond = Vec::new();
    for _ in 0..500 {
        beyond = held(node).beyond(before);
        if beyond.is_empty() && zombies() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} zombies are left; {}", zombies(), beyond.join("; "));
}

async fn gone(words: &[&str], limit: Duration) {
    eventually(&format!("the end of {words:?}"), limit, async || processes(words).is_empty().then_some(())).await;
}

async fn there(words: &[&str]) {
    eventually(&format!("{words:?}"), SOON, async || (!processes(words).is_empty()).then_some(())).await;
}

async fn exec(cri: &Cri, id: &str, transport: &str, script: &str, wanted: Wanted) -> Session {
    let url = cri.exec_url(id, &["/bin/sh", "-c", script], wanted).await.unwrap();
    Client::new(transport, wanted).start(&url)
}

async fn a_command_ends_with_its_client(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = holdings(node).await;
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
    settled(node, &before).await;
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
}

async fn a_command_on_a_terminal_hangs_up_with_its_client(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = holdings(node).await;
    for transport in transports() {
        let mut session = exec(&cri, &id, transport, "echo ready; sleep 72001", Wanted::TERMINAL).await;
        session.read_until("ready\r\n").await;
        there(&["sleep", "72001"]).await;
        session.kill().await;
        gone(&["sleep", "72001"], SOON).await;
    }
    let mut session = exec(&cri, &id, "spdy", "trap '' HUP; echo ready; sleep 72002", Wanted::TERMINAL).await;
    session.read_until("ready\r\n").await;
    session.kill().await;
    gone(&["sleep", "72002"], GRACE).await;
    settled(node, &before).await;
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
    let before = holdings(node).await;
    for transport in transports() {
        for _ in 0..5 {
            attach(transport).await.kill().await;
        }
    }
    settled(node, &before).await;
    // The next client is served.
    attach("spdy").await.kill().await;
}

async fn connections_end_with_their_client(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, _) = cri.run_in_pod(&pod("main"), &shell("main", "exec sleep 73001")).await.unwrap();
    let pid = eventually("the container", SOON, async || processes(&["sleep", "73001"]).first().copied()).await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo ready; exec cat")]).await;
    let mut before = None;
    for transport in ["spdy"].iter().chain(transports()) {
        let url = cri.forward_url(&pod, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = forward.connect(0).await;
            let mut greeting = [0; 6];
            within("a greeting", SOON, stream.read_exact(&mut greeting)).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            streams.push(stream);
        }
        assert!(!processes(&["cat"]).is_empty());
        forward.kill().await;
        gone(&["cat"], SOON).await;
        match &before {
            None => before = Some(holdings(node).await),
            Some(before) => settled(node, before).await,
        }
    }
}

/// It neither reads nor closes: its command waits, and all else goes on.
async fn a_client_that_goes_to_sleep_holds_up_nobody(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = holdings(node).await;
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
        let outcome = within("a session", SOON, Client::new(transport, Wanted::OUTPUT).run(&url, b"")).await;
        assert_eq!(outcome.text(), "fine\n", "{transport}: {}", outcome.error);
    }
    assert_eq!(within("a command", SOON, cri.sh(&id, "echo fine")).await, "fine");
    for session in sleeping {
        session.kill().await;
    }
    gone(&["/bin/cat", "/dev/zero"], SOON).await;
    settled(node, &before).await;
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
            let outcome = within("the end of a session", SOON, session.ended()).await;
            assert!(outcome.code != 0, "{transport}, {wanted:?}: {outcome:?}");
        }
        assert_eq!(cri.exited(&id).await.exit_code, 137);
        gone(&["sleep", "74002"], SOON).await;
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
    let pid = eventually("the container", SOON, async || processes(&["-c", counter]).first().copied()).await;
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
        within("a greeting", SOON, stream.read_exact(&mut greeting)).await.unwrap();
        forwards.push((forward, stream));
    }
    if politely {
        within("the end of the daemon", SOON, node.stop()).await;
    } else {
        node.kill();
    }
    for session in sessions {
        within("the end of a session", SOON, session.ended()).await;
    }
    for (mut forward, mut stream) in forwards {
        let mut rest = Vec::new();
        within("the end of a connection", SOON, stream.read_to_end(&mut rest)).await.ok();
        within("the end of the forwarding", SOON, forward.error()).await;
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
        within("a greeting", SOON, stream.read_exact(&mut greeting)).await.unwrap();
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
        let pid = eventually("the container", SOON, async || processes(&["sleep", "76001"]).first().copied()).await;
        let server = Server::start(pid, &[("127.0.0.1:81", "echo ready; exec cat")]).await;
        let url = cri.forward_url(&sandbox, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        let mut stream = forward.connect(0).await;
        let mut greeting = [0; 6];
        within("a greeting", SOON, stream.read_exact(&mut greeting)).await.unwrap();
        within("the stop", SOON, cri.stop_pod(&sandbox)).await.unwrap();
        drop(server);
        within("the removal", SOON, cri.remove_pod(&sandbox)).await.unwrap();
        // A new connection reaches nobody, least of all the host.
        let mut stream = forward.connect(0).await;
        let mut rest = Vec::new();
        within("the end of a connection", SOON, stream.read_to_end(&mut rest)).await.ok();
        assert_eq!(rest, b"", "{transport}");
        forward.kill().await;
    }
}

async fn five_hundred_sessions_at_once(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = holdings(node).await;
    for transport in transports().iter().take(2) {
        let mut many = Many::start(transport);
        for number in 0..500 {
            let script = format!(
                "while [ ! -e /tmp/go-{transport} ]; do usleep 100000; done; echo {number}; exit {}",
                number % 100
            );
            let url = cri.exec_url(&id, &["/bin/sh", "-c", &script], Wanted { stderr: false, ..Wanted::OUTPUT }).await;
            many.open(&url.unwrap(), false).await;
        }
        // All of them run at the same time.
        eventually("five hundred commands", Duration::from_secs(60), async || {
            let count = cri.sh(&id, "ls -d /proc/[0-9]* | wc -l").await;
            (count.parse::<usize>().unwrap() > 500).then_some(())
        })
        .await;
        cri.sh(&id, &format!("touch /tmp/go-{transport}")).await;
        let mut seen = vec![false; 500];
        for _ in 0..500 {
            let ended = many.next().await;
            let number: usize = ended["text"].as_str().unwrap().trim().parse().unwrap_or_else(|_| panic!("{ended}"));
            assert_eq!(ended["code"], number % 100, "{transport}: {ended}");
            assert!(!std::mem::replace(&mut seen[number], true), "{transport}: {ended}");
        }
        many.end().await;
    }
    settled(node, &before).await;
}

async fn two_thousand_sessions_one_after_the_other(node: &mut Node) {
    let (cri, id) = running(node).await;
    let before = holdings(node).await;
    let before_threads = threads(node.daemon().pid());
    for transport in transports().iter().take(2) {
        let mut many = Many::start(transport);
        for number in 0..1000 {
            // A tenth of them is left in the midst.
            let leave = number % 10 == 9;
            let script = if leave { "while echo tick; do usleep 1000; done" } else { "echo $$; exit 3" };
            let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted { stderr: false, ..Wanted::OUTPUT }).await;
            many.open(&url.unwrap(), leave).await;
            let ended = many.next().await;
            assert_eq!(ended["code"], if leave { -1 } else { 3 }, "{transport}, {number}: {ended}");
        }
        many.end().await;
    }
    gone(&["/bin/sh", "-c", "while echo tick; do usleep 1000; done"], GRACE).await;
    settled(node, &before).await;
    let now = threads(node.daemon().pid());
    // The runtime has a few threads for calls that block, and ends them when they were idle for a while.
    assert!(now <= before_threads + 4, "{now} threads, {before_threads} before");
}

//! Terminals of commands, over every client there is (contract: line 26).

use tripod_tests::{Client, Cri, Node, Sizes, Wanted, host_pod, shell, tests, transports};

tests![a_terminal_has_a_size_that_changes, a_terminal_is_one, keys_are_signals, the_end_of_input_is_a_key,];

async fn running(node: &mut Node) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    (cri, id)
}

async fn a_terminal_has_a_size_that_changes(node: &mut Node) {
    let (cri, id) = running(node).await;
    for transport in transports() {
        let sizes = Sizes::default();
        sizes.set(120, 40);
        let script = "until [ \"$(stty size 2>/dev/null)\" = '40 120' ]; do usleep 10000; done; \
                      trap 'echo size $(stty size)' WINCH; echo ready; while :; do usleep 20000; done";
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::TERMINAL).await.unwrap();
        let mut session = Client::new(transport, Wanted::TERMINAL).sizes(&sizes).start(&url);
        session.read_until("ready\r\n").await;
        for (columns, rows) in [(80, 24), (500, 200), (20, 5)] {
            sizes.set(columns, rows);
            session.read_until(&format!("size {rows} {columns}\r\n")).await;
        }
        session.write("\x03").await;
        assert_eq!(session.ended().await.code, 130, "{transport}");
    }
}

async fn a_terminal_is_one(node: &mut Node) {
    let (cri, id) = running(node).await;
    let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo err >&2; ls -l $(tty) | cut -c1-10; \
                  read line </dev/tty; echo \"got $line\"; exit 6";
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::TERMINAL).await.unwrap();
        let mut session = Client::new(transport, Wanted::TERMINAL).start(&url);
        let text = session.read_until("crw--w----\r\n").await;
        assert!(text.starts_with("/dev/pts/") && text.contains("\r\nall\r\nerr\r\n"), "{transport}: {text:?}");
        session.write("word\n").await;
        // What is typed is echoed by the terminal.
        let text = session.read_until("got word\r\n").await;
        assert!(text.contains("\r\nword\r\ngot word\r\n"), "{transport}: {text:?}");
        assert_eq!(session.ended().await.code, 6, "{transport}");
    }
}

async fn keys_are_signals(node: &mut Node) {
    let (cri, id) = running(node).await;
    for transport in transports() {
        for (key, code) in [("\x03", 130), ("\x1c", 131)] {
            // A shell may swallow what comes between its words and those of the program that it becomes.
            let script = "trap 'exit 130' INT; trap 'exit 131' QUIT; echo ready; while :; do usleep 20000; done";
            let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::TERMINAL).await.unwrap();
            let mut session = Client::new(transport, Wanted::TERMINAL).start(&url);
            session.read_until("ready").await;
            session.write(key).await;
            assert_eq!(session.ended().await.code, code, "{transport}");
        }
    }
}

async fn the_end_of_input_is_a_key(node: &mut Node) {
    let (cri, id) = running(node).await;
    for transport in transports() {
        let url = cri.exec_url(&id, &["/bin/cat"], Wanted::TERMINAL).await.unwrap();
        let mut session = Client::new(transport, Wanted::TERMINAL).start(&url);
        session.write("line\n\x04").await;
        let outcome = session.ended().await;
        assert_eq!((outcome.code, outcome.text().as_str()), (0, "line\r\nline\r\n"), "{transport}: {}", outcome.error);
    }
}

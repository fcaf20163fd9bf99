//! What the configuration says of sessions: how long, how many, and in whose sight.

use std::{path::Path, process::Command, time::Duration};

use tonic::Code;
use tripod_tests::{Client, Cri, Node, Wanted, eventually, host_pod, shell, tests, within};

tests![
    a_url_expires,
    urls_are_not_kept_without_limit,
    sessions_are_not_served_without_limit,
    a_silent_session_ends,
    sessions_are_encrypted,
    clients_are_known_by_their_certificates,
];

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

async fn running(node: &mut Node) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    (cri, id)
}

async fn url(cri: &Cri, id: &str, script: &str) -> String {
    cri.exec_url(id, &["/bin/sh", "-c", script], Wanted::OUTPUT).await.unwrap()
}

async fn a_url_expires(node: &mut Node) {
    node.settings.raw("streaming.token_seconds", "2");
    let (cri, id) = running(node).await;
    for transport in TRANSPORTS {
        // On a busy machine a client may come too late.
        eventually("a client in time", Duration::from_secs(60), async || {
            let early = url(&cri, &id, "echo early").await;
            let outcome = Client::new(transport, Wanted::OUTPUT).run(&early, b"").await;
            (outcome.text() == "early\n").then_some(())
        })
        .await;
        let late = url(&cri, &id, "echo late").await;
        tokio::time::sleep(Duration::from_millis(2200)).await;
        let outcome = Client::new(transport, Wanted::OUTPUT).run(&late, b"").await;
        assert_eq!((outcome.code, outcome.text().as_str()), (-1, ""), "{transport}: {}", outcome.error);
    }
}

async fn urls_are_not_kept_without_limit(node: &mut Node) {
    node.settings.raw("streaming.max_tokens", "3");
    let (cri, id) = running(node).await;
    let mut urls = Vec::new();
    for _ in 0..3 {
        urls.push(url(&cri, &id, "echo ok").await);
    }
    let error = cri.exec_url(&id, &["/bin/true"], Wanted::OUTPUT).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert_eq!(Client::new("spdy", Wanted::OUTPUT).run(&urls[0], b"").await.text(), "ok\n");
    cri.exec_url(&id, &["/bin/true"], Wanted::OUTPUT).await.unwrap();
}

async fn sessions_are_not_served_without_limit(node: &mut Node) {
    node.settings.raw("streaming.max_sessions", "2");
    let (cri, id) = running(node).await;
    let mut sessions = Vec::new();
    for transport in TRANSPORTS {
        let mut session = Client::new(transport, Wanted::ALL)
            .start(&cri.exec_url(&id, &["/bin/sh", "-c", "echo ready; cat"], Wanted::ALL).await.unwrap());
        session.read_until("ready\n").await;
        sessions.push(session);
    }
    for transport in TRANSPORTS {
        let outcome = Client::new(transport, Wanted::OUTPUT).run(&url(&cri, &id, "echo one more").await, b"").await;
        assert_eq!((outcome.code, outcome.text().as_str()), (-1, ""), "{transport}: {}", outcome.error);
    }
    assert_eq!(sessions.pop().unwrap().end().await.code, 0);
    // The client sees the end before the place is free.
    eventually("a place", Duration::from_secs(30), async || {
        let outcome = Client::new("spdy", Wanted::OUTPUT).run(&url(&cri, &id, "echo fits").await, b"").await;
        (outcome.text() == "fits\n").then_some(())
    })
    .await;
    sessions.pop().unwrap().kill().await;
}

async fn a_silent_session_ends(node: &mut Node) {
    node.settings.raw("streaming.idle_seconds", "3");
    let (cri, id) = running(node).await;
    for transport in TRANSPORTS {
        // One that speaks now and then goes on.
        let speaking = url(&cri, &id, "for i in 1 2 3 4 5 6 7 8; do usleep 500000; echo $i; done").await;
        let outcome = Client::new(transport, Wanted::OUTPUT).run(&speaking, b"").await;
        assert_eq!(outcome.text(), "1\n2\n3\n4\n5\n6\n7\n8\n", "{transport}: {}", outcome.error);
        let silent = url(&cri, &id, "echo ready; sleep 81001").await;
        let client = Client::new(transport, Wanted::OUTPUT);
        let outcome = within("a silent session", Duration::from_secs(50), client.run(&silent, b"")).await;
        assert_eq!((outcome.code == 0, outcome.text().as_str()), (false, "ready\n"), "{transport}: {}", outcome.error);
    }
}

/// An authority, and certificates for the server and a client from it; and another authority.
fn certificates(folder: &Path) {
    let script = "
        set -e
        authority() {
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=$1 \
                -keyout $1.key -out $1.pem -addext basicConstraints=critical,CA:TRUE
        }
        issue() {
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$1 -keyout $1.key -out $1.csr
            printf '%s\\n' \"subjectAltName=IP:127.0.0.1\" >$1.ext
            openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.pem
        }
        authority ca
        issue server
        issue client
    ";
    let done = Command::new("sh").args(["-c", script]).current_dir(folder).output().expect("sh");
    assert!(done.status.success(), "openssl: {}", String::from_utf8_lossy(&done.stderr));
}

fn encrypt(node: &mut Node, clients: bool) {
    let folder = node.folder().to_owned();
    certificates(&folder);
    let file = |name: &str| folder.join(name).display().to_string();
    node.settings.text("streaming.tls.certificate", &file("server.pem"));
    node.settings.text("streaming.tls.key", &file("server.key"));
    if clients {
        node.settings.text("streaming.tls.client_ca", &file("ca.pem"));
    }
}

async fn sessions_are_encrypted(node: &mut Node) {
    encrypt(node, false);
    let (cri, id) = running(node).await;
    for transport in TRANSPORTS {
        let url = cri.exec_url(&id, &["/bin/sh", "-c", "cat; exit 3"], Wanted::ALL).await.unwrap();
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        let data = "line\n".repeat(100_000);
        let client = Client::new(transport, Wanted::ALL).tls(node.folder(), false);
        let outcome = client.run(&url, data.as_bytes()).await;
        assert_eq!((outcome.code, outcome.text().len()), (3, data.len()), "{transport}: {}", outcome.error);
        // One who does not know the authority does not go in, and neither does one who speaks in clear.
        let next = cri.exec_url(&id, &["/bin/true"], Wanted::OUTPUT).await.unwrap();
        for url in [next.clone(), next.replace("https:", "http:")] {
            assert_eq!(Client::new(transport, Wanted::OUTPUT).run(&url, b"").await.code, -1, "{transport}");
        }
    }
}

async fn clients_are_known_by_their_certificates(node: &mut Node) {
    encrypt(node, true);
    let (cri, id) = running(node).await;
    for transport in TRANSPORTS {
        for known in [true, false] {
            let url = url(&cri, &id, "echo in").await;
            let outcome = Client::new(transport, Wanted::OUTPUT).tls(node.folder(), known).run(&url, b"").await;
            assert_eq!(outcome.text(), if known { "in\n" } else { "" }, "{transport}: {}", outcome.error);
        }
    }
}

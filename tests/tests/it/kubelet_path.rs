//! The way that sessions have in a cluster: through the handlers of an API server and a kubelet (contract: line 26).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tripod_cri_api::v1::ContainerConfig;
use tripod_tests::{
    Client, Cri, Forward, Node, Server, Sizes, Wanted, eventually, host_pod, peer, pod, processes, shell, tests,
    transports, within,
};

tests![commands_come_through, terminals_come_through, attachments_come_through, ports_come_through];

const LIMIT: Duration = Duration::from_secs(20);

async fn running(node: &mut Node) -> (Cri, String) {
    let cri = node.ready().await;
    let (_, id) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    (cri, id)
}

/// What is on the way, and what the client speaks.
fn ways() -> impl Iterator<Item = (&'static str, &'static str)> {
    ["kubelet", "apiserver"].into_iter().flat_map(|path| transports().iter().map(move |transport| (path, *transport)))
}

async fn commands_come_through(node: &mut Node) {
    let (cri, id) = running(node).await;
    let data = "line of input\n".repeat(200_000);
    for (path, transport) in ways() {
        let client = |wanted| Client::new(transport, wanted).through(path);
        let script = "wc -c; echo err >&2; head -c 3000000 /dev/zero; exit 9";
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::ALL).await.unwrap();
        let outcome = client(Wanted::ALL).run(&url, data.as_bytes()).await;
        let expected = format!("{}\n", data.len());
        assert_eq!(outcome.code, 9, "{path}, {transport}: {}", outcome.error);
        assert_eq!(outcome.stdout.len(), expected.len() + 3_000_000, "{path}, {transport}");
        assert!(outcome.stdout.starts_with(expected.as_bytes()), "{path}, {transport}");
        assert_eq!(outcome.stderr, b"err\n", "{path}, {transport}");
        let url = cri.exec_url(&id, &["/no/such/program"], Wanted::OUTPUT).await.unwrap();
        let outcome = client(Wanted::OUTPUT).run(&url, b"").await;
        assert!(outcome.code != 0 && outcome.error.contains("/no/such/program"), "{path}, {transport}: {outcome:?}");
    }
}

async fn terminals_come_through(node: &mut Node) {
    let (cri, id) = running(node).await;
    for (path, transport) in ways() {
        let sizes = Sizes::default();
        sizes.set(120, 40);
        let script = "until [ \"$(stty size 2>/dev/null)\" = '40 120' ]; do usleep 10000; done; \
                      trap 'echo size $(stty size)' WINCH; echo ready; while :; do usleep 20000; done";
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::TERMINAL).await.unwrap();
        let mut session = Client::new(transport, Wanted::TERMINAL).through(path).sizes(&sizes).start(&url);
        session.read_until("ready\r\n").await;
        sizes.set(80, 24);
        session.read_until("size 24 80\r\n").await;
        session.write("\x03").await;
        assert_eq!(session.ended().await.code, 130, "{path}, {transport}");
    }
}

async fn attachments_come_through(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("main");
    let sandbox = cri.run_pod(&config).await.unwrap();
    for (path, transport) in ways() {
        let script = "while read line; do echo \"got $line\"; done; echo end";
        let name = format!("{path}-{transport}");
        let container = ContainerConfig { stdin: true, stdin_once: true, ..shell(&name, script) };
        let id = cri.run(&sandbox, &config, &container).await.unwrap();
        let url = cri.attach_url(&id, Wanted::ALL).await.unwrap();
        let mut session = Client::new(transport, Wanted::ALL).through(path).start(&url);
        session.write("one\n").await;
        session.read_until("got one\n").await;
        let outcome = session.end().await;
        assert_eq!((outcome.code, outcome.text().as_str()), (0, "got one\nend\n"), "{name}: {}", outcome.error);
    }
}

async fn ports_come_through(node: &mut Node) {
    if peer::chosen() {
        return; // It forwards no half-close.
    }
    let cri = node.ready().await;
    let (sandbox, _) = cri.run_in_pod(&pod("web"), &shell("main", "exec sleep 91001")).await.unwrap();
    let pid = eventually("the container", LIMIT, async || processes(&["sleep", "91001"]).first().copied()).await;
    // Who closes with input unread takes back what it has sent.
    let second = "wc -c >/dev/null; head -c 5000000 /dev/zero";
    let _server = Server::start(pid, &[("127.0.0.1:81", "wc -c"), ("127.0.0.1:82", second)]).await;
    for (path, transport) in ways() {
        let url = cri.forward_url(&sandbox, &[81, 82, 4999]).await.unwrap();
        let mut forward = Forward::through(path, transport, &url, &[81, 82, 4999]).await;
        let mut answers = Vec::new();
        for place in 0..3 {
            let mut stream = forward.connect(place).await;
            let mut answer = Vec::new();
            let work = async {
                stream.write_all(&vec![b'x'; 1_000_000]).await.ok();
                stream.shutdown().await.ok();
                stream.read_to_end(&mut answer).await.ok();
            };
            within("an exchange", LIMIT, work).await;
            answers.push(answer);
        }
        assert_eq!(answers[0], b"1000000\n", "{path}, {transport}");
        assert_eq!((answers[1].len(), answers[2].len()), (5_000_000, 0), "{path}, {transport}");
        let error = forward.error().await;
        assert!(error.contains("4999") && error.contains("refused"), "{path}, {transport}: {error}");
        forward.kill().await;
    }
}

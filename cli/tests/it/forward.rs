//! `port-forward`, to a pod whose ports a test plays.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::Shutdown,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use libtest_mimic::Trial;
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tripod_streaming::spdy::{Config, Connection, Headers, Incoming, Role, Stream};

use crate::{
    command::{outcome, signal, tripod},
    daemon::Daemon,
    test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("connections_go_both_ways_and_end_one_way_at_a_time", connections_go_both_ways_and_end_one_way_at_a_time),
        test("many_connections_share_a_session", many_connections_share_a_session),
        test("a_slow_connection_holds_up_no_other", a_slow_connection_holds_up_no_other),
        test("a_connection_that_fails_is_told", a_connection_that_fails_is_told),
        test("the_next_connection_opens_a_new_session", the_next_connection_opens_a_new_session),
        test("a_port_in_use_is_told", a_port_in_use_is_told),
    ]
}

/// Answers the upgrade, and gives the streams that come.
async fn upgrade(mut stream: TcpStream) -> (Connection, Incoming) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /stream/token http/1.1\r\nhost: localhost:"), "{head}");
    for line in
        ["connection: upgrade\r\n", "upgrade: spdy/3.1\r\n", "x-stream-protocol-version: portforward.k8s.io\r\n"]
    {
        assert!(head.contains(line), "{head}");
    }
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
        X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    Connection::new(stream, Role::Server, Config::default())
}

/// The ports of a pod: 7 gives everything back and then says how much it was, 9 reads nothing, others refuse.
async fn pod(stream: TcpStream) {
    let (_connection, mut streams) = upgrade(stream).await;
    // The streams of several connections may come between those of one.
    let mut waiting = HashMap::new();
    while let Some(stream) = streams.next().await {
        // A client that has left takes no reply.
        let _ = stream.reply(&Headers::new(), false).await;
        let header = |name| stream.headers().get(name).unwrap().to_owned();
        let (kind, request, number) = (header("streamtype"), header("requestid"), header("port"));
        match (kind.as_str(), waiting.remove(&request)) {
            ("error", None) => drop(waiting.insert(request, stream)),
            ("data", Some(error)) => drop(tokio::spawn(port(number, error, stream))),
            (kind, _) => panic!("{kind} stream of {request}"),
        }
    }
}

async fn port(number: String, error: Stream, data: Stream) {
    let ((mut reader, mut writer), (_, mut told)) = (data.split(), error.split());
    match number.as_str() {
        "7" => {
            let mut sum = 0;
            while let Ok(Some(bytes)) = reader.read().await {
                sum += bytes.len();
                if writer.write(&bytes).await.is_err() {
                    return;
                }
            }
            // Fails where the client has left.
            let _ = writer.write(format!("[{sum}]").as_bytes()).await;
            let _ = writer.finish().await;
            let _ = told.finish().await;
        }
        "9" => std::future::pending().await,
        other => {
            told.write(format!("nobody listens at port {other}").as_bytes()).await.unwrap();
            told.finish().await.unwrap();
            writer.finish().await.unwrap();
        }
    }
}

/// The command, and the local ports that it says.
struct Forward {
    child: Child,
    told: Arc<Mutex<String>>,
    telling: std::thread::JoinHandle<()>,
    ports: Vec<u16>,
}

impl Forward {
    async fn start(mut command: Command, lines: usize) -> Self {
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut ports = Vec::new();
            for _ in 0..lines {
                let line = said.next().expect("a line").unwrap();
                let address = line.strip_prefix("Forwarding from 127.0.0.1:").expect(&line);
                ports.push(address.split(' ').next().unwrap().parse().unwrap());
            }
            let (mut errors, told) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::default());
            let text: Arc<Mutex<String>> = Arc::clone(&told);
            let telling = std::thread::spawn(move || {
                while let Some(Ok(line)) = errors.next() {
                    *text.lock().unwrap() += &(line + "\n");
                }
            });
            Self { child, told, telling, ports }
        })
        .await
        .unwrap()
    }

    /// Waits until it has told something about errors; gives all that it has told.
    async fn tells(&self, text: &str) -> String {
        loop {
            let told = self.told.lock().unwrap().clone();
            if told.contains(text) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it; what it has told about errors.
    async fn end(mut self) -> String {
        signal(&self.child, Signal::INT);
        let end = move || {
            let code = self.child.wait().unwrap().code();
            self.telling.join().unwrap();
            code
        };
        let code = tokio::task::spawn_blocking(end).await.unwrap();
        let told = self.told.lock().unwrap().clone();
        assert_eq!(code, Some(0), "{told}");
        told
    }
}

fn command(daemon: &Daemon, ports: &[&str]) -> Command {
    tripod(&daemon.socket(), &[&["port-forward", "--address", "127.0.0.1", "web"], ports].concat())
}

/// Sends all and ends that way; gives what comes back until the other way ends.
async fn exchange(port: u16, data: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let mut back = Vec::new();
    let send = async {
        to.write_all(data).await.unwrap();
        to.shutdown().await.unwrap();
    };
    tokio::join!(send, async { from.read_to_end(&mut back).await.unwrap() });
    back
}

async fn connections_go_both_ways_and_end_one_way_at_a_time() {
    let daemon = Daemon::start_raw("http", pod).await;
    let forward = Forward::start(command(&daemon, &[":7", ":7"]), 2).await;
    let data: Vec<u8> = (0..5_000_000_u32).map(|number| number as u8).collect();
    let back = exchange(forward.ports[0], &data).await;
    assert!(back == [&data[..], b"[5000000]"].concat(), "{} bytes came back", back.len());
    assert_eq!(exchange(forward.ports[1], b"").await, b"[0]");
    assert_eq!(forward.end().await, "");
}

async fn many_connections_share_a_session() {
    let daemon = Daemon::start_raw("http", pod).await;
    let forward = Forward::start(command(&daemon, &[":7"]), 1).await;
    let port = forward.ports[0];
    let all = (0..100).map(|number| async move {
        let data = vec![number as u8; 10_000 + number];
        let expected = [&data[..], format!("[{}]", data.len()).as_bytes()].concat();
        assert!(exchange(port, &data).await == expected, "connection {number} got something else");
    });
    join_all(all).await;
    assert_eq!(daemon.state.lock().unwrap().forwards, 1);
    // Clients that leave in the middle concern nobody.
    for _ in 0..10 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(b"x").await.unwrap();
        client.set_zero_linger().unwrap();
    }
    assert_eq!(exchange(port, b"x").await, b"x[1]");
    assert_eq!(forward.end().await, "");
}

async fn a_slow_connection_holds_up_no_other() {
    let daemon = Daemon::start_raw("http", pod).await;
    let forward = Forward::start(command(&daemon, &[":7", ":9"]), 2).await;
    let mut slow = TcpStream::connect(("127.0.0.1", forward.ports[1])).await.unwrap();
    // As much as all buffers on the way take.
    let broken = async {
        loop {
            if let Err(error) = slow.write_all(&[0; 64 << 10]).await {
                break error;
            }
        }
    };
    if let Ok(error) = tokio::time::timeout(Duration::from_secs(1), broken).await {
        panic!("{error}; {}", forward.end().await);
    }
    assert_eq!(exchange(forward.ports[0], b"quick").await, b"quick[5]");
    forward.end().await;
}

async fn a_connection_that_fails_is_told() {
    let daemon = Daemon::start_raw("http", pod).await;
    let forward = Forward::start(command(&daemon, &[":81"]), 1).await;
    assert_eq!(exchange(forward.ports[0], b"").await, b"");
    let told = forward.tells("nobody").await;
    assert_eq!(told, "tripod: connection to port 81: nobody listens at port 81\n");
    forward.end().await;
    // So is a server that wants none of this.
    let refuse = |mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nnot here";
        stream.write_all(answer).await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
    };
    let daemon = Daemon::start_raw("http", refuse).await;
    let output = outcome(command(&daemon, &[":81"]), b"").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("403 Forbidden not here"), "{text}");
}

async fn the_next_connection_opens_a_new_session() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&sessions);
    let daemon = Daemon::start_raw("http", move |stream| {
        let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if !first {
                return pod(stream).await;
            }
            // A daemon that ends when the first connection is there.
            let stream = stream.into_std().unwrap();
            let end = stream.try_clone().unwrap();
            let (_connection, mut streams) = upgrade(TcpStream::from_std(stream).unwrap()).await;
            let _pair = (streams.next().await.unwrap(), streams.next().await.unwrap());
            end.shutdown(Shutdown::Both).unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let forward = Forward::start(command(&daemon, &[":7"]), 1).await;
    let mut lost = TcpStream::connect(("127.0.0.1", forward.ports[0])).await.unwrap();
    lost.write_all(b"x").await.unwrap();
    assert!(!matches!(lost.read(&mut [0; 16]).await, Ok(1..)));
    assert_eq!(exchange(forward.ports[0], b"again").await, b"again[5]");
    assert_eq!(sessions.load(Ordering::Relaxed), 2);
    let told = forward.tells("the session broke off").await;
    assert_eq!(told.lines().count(), 1, "{told}");
    forward.end().await;
}

async fn a_port_in_use_is_told() {
    let daemon = Daemon::start_raw("http", pod).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut command = command(&daemon, &[&format!("{port}:80")]);
    command.stdout(Stdio::null());
    let output = outcome(command, b"").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(&format!("listen at port {port} of 127.0.0.1")), "{text}");
}

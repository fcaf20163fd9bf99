//! Clients that vanish, at every point. A client's connection ends here as it does when its process is killed.

use futures::SinkExt;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, copy_bidirectional, duplex},
    task::JoinHandle,
    time::{Duration, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tripod_streaming::{ExecRequest, Streams};

use crate::{
    http::{SPDY, connect, request},
    nothing_is_left, spdy_client,
    world::{ALL, OUT, STUCK, TERMINAL, World},
    ws_client,
};

const SOON: Duration = Duration::from_secs(9);
/// A client of an older WebSocket protocol may have left in order to end its input, so its process has time; and behind
/// data that nobody takes a client's end shows with the next ping only.
const LATER: Duration = Duration::from_secs(40);
const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

/// A connection that can be cut.
struct Wire(JoinHandle<()>);

impl Wire {
    async fn to(url: &str) -> (DuplexStream, Self) {
        let mut stream = connect(url).await;
        let (near, mut far) = duplex(64 << 10);
        let wire = tokio::spawn(async move {
            let _ = copy_bidirectional(&mut far, &mut stream).await;
        });
        (near, Self(wire))
    }

    async fn cut(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

/// Time for a session to get to the point in question.
async fn settle() {
    sleep(Duration::from_millis(300)).await;
}

fn stuck(world: &World, streams: Streams) -> String {
    let request = ExecRequest { container: STUCK.into(), command: vec!["true".into()], streams };
    world.server.exec_url(request).unwrap()
}

#[test]
fn before_the_session() {
    nothing_is_left(SOON, async |world| {
        for head in ["", "GET /exec/", "GET /exec/x HTTP/1.1\r\nHost: x\r\n"] {
            let (mut io, wire) = Wire::to(&world.sh("true", OUT)).await;
            io.write_all(head.as_bytes()).await.unwrap();
            settle().await;
            wire.cut().await;
        }
        // Upgraded, with no stream, and with some.
        for count in 0..3 {
            let url = world.exec(&["cat"], ALL);
            let (io, wire) = Wire::to(&url).await;
            let (connection, _incoming) = spdy_client::upgrade(io, &url, &[V4]).await;
            for name in &["error", "stdin"][..count.min(2)] {
                spdy_client::open(&connection, &[("streamType", name)]).await;
            }
            settle().await;
            wire.cut().await;
        }
    });
}

#[test]
fn while_the_process_is_awaited() {
    nothing_is_left(SOON, async |world| {
        let url = stuck(&world, ALL);
        let (io, wire) = Wire::to(&url).await;
        let _client = spdy_client::Client::over(io, &url, V4, ALL).await;
        let url = stuck(&world, ALL);
        let (io, other) = Wire::to(&url).await;
        let _other = ws_client::Client::over(io, &url, V5).await;
        settle().await;
        let both = async {
            while world.active() < 2 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LATER, both).await.expect("two sessions");
        wire.cut().await;
        other.cut().await;
    });
}

#[test]
fn while_nothing_happens() {
    nothing_is_left(SOON, async |world| {
        for streams in [OUT, ALL, TERMINAL] {
            let url = world.exec(&["sleep", "1000"], streams);
            let (io, wire) = Wire::to(&url).await;
            let _client = spdy_client::Client::over(io, &url, V4, streams).await;
            let url = world.exec(&["sleep", "1000"], streams);
            let (io, other) = Wire::to(&url).await;
            let _other = ws_client::Client::over(io, &url, V5).await;
            settle().await;
            wire.cut().await;
            other.cut().await;
        }
    });
}

#[test]
fn while_nobody_takes_its_input() {
    nothing_is_left(LATER, async |world| {
        let url = world.exec(&["sleep", "1000"], ALL);
        let (io, wire) = Wire::to(&url).await;
        let mut client = spdy_client::Client::over(io, &url, V4, ALL).await;
        let mut stdin = client.stdin.take().unwrap();
        let sending = tokio::spawn(async move { while stdin.write(&[7; 100_000]).await.is_ok() {} });
        let url = world.exec(&["sleep", "1000"], ALL);
        let (io, other) = Wire::to(&url).await;
        let mut client = ws_client::Client::over(io, &url, V5).await;
        let more =
            tokio::spawn(async move { while client.socket.send(Message::binary(vec![0; 100_000])).await.is_ok() {} });
        settle().await;
        settle().await;
        wire.cut().await;
        other.cut().await;
        sending.await.unwrap();
        more.await.unwrap();
    });
}

#[test]
fn while_it_takes_no_output() {
    nothing_is_left(SOON, async |world| {
        for streams in [OUT, TERMINAL] {
            let url = world.sh("exec cat /dev/zero", streams);
            let (io, wire) = Wire::to(&url).await;
            let _client = spdy_client::Client::over(io, &url, V4, streams).await;
            let url = world.sh("exec cat /dev/zero", streams);
            let (io, other) = Wire::to(&url).await;
            let _other = ws_client::Client::over(io, &url, V5).await;
            settle().await;
            wire.cut().await;
            other.cut().await;
        }
    });
}

#[test]
fn after_the_end_without_listening() {
    nothing_is_left(SOON, async |world| {
        let url = world.sh("head -c 9000000 /dev/zero", OUT);
        let (io, wire) = Wire::to(&url).await;
        let _client = spdy_client::Client::over(io, &url, V4, OUT).await;
        let url = world.sh("exit 3", OUT);
        let (io, other) = Wire::to(&url).await;
        let _other = ws_client::Client::over(io, &url, V5).await;
        settle().await;
        wire.cut().await;
        other.cut().await;
    });
}

#[test]
fn while_a_process_ignores_the_end_of_its_input() {
    nothing_is_left(LATER, async |world| {
        let url = world.exec(&["sleep", "1000"], ALL);
        let (io, wire) = Wire::to(&url).await;
        let mut client = ws_client::Client::over(io, &url, V4).await;
        client.send(0, b"input").await;
        settle().await;
        wire.cut().await;
    });
}

#[test]
fn while_ports_are_forwarded() {
    nothing_is_left(SOON, async |world| {
        let service = world.service;
        let url = world.forward(&[]);
        let (io, wire) = Wire::to(&url).await;
        let (connection, incoming) = spdy_client::upgrade(io, &url, &["portforward.k8s.io"]).await;
        let mut streams = Vec::new();
        for id in 0..20 {
            let (id, port) = (id.to_string(), service.to_string());
            for kind in ["error", "data"] {
                let headers = [("streamType", kind), ("port", &*port), ("requestID", &*id)];
                let stream = spdy_client::open(&connection, &headers).await;
                let (reader, mut writer) = stream.split();
                if kind == "data" {
                    tokio::spawn(async move { while writer.write(&[1; 10_000]).await.is_ok() {} });
                }
                // Nobody reads what comes back.
                streams.push(reader);
            }
        }
        // One that has no partner yet.
        let lonely = spdy_client::open(&connection, &[("streamType", "data"), ("port", "1"), ("requestID", "x")]).await;
        settle().await;
        wire.cut().await;
        drop((connection, incoming, streams, lonely));

        let url = world.forward(&[service, service]);
        let (io, wire) = Wire::to(&url).await;
        let mut client = ws_client::Client::over(io, &url, V4).await;
        client.send(0, &[1; 100_000]).await;
        client.send(2, &[1; 100_000]).await;
        settle().await;
        wire.cut().await;
        drop(client);
    });
}

#[test]
fn a_tunnel() {
    nothing_is_left(SOON, async |world| {
        let url = world.forward(&[]);
        let (mut io, wire) = Wire::to(&url).await;
        let mut headers = vec![("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        headers.push(("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="));
        headers.push(("Sec-WebSocket-Protocol", "SPDY/3.1+portforward.k8s.io"));
        assert_eq!(request(&mut io, "GET", &url, &headers).await.status, 101);
        settle().await;
        wire.cut().await;
    });
}

#[test]
fn junk_instead_of_frames() {
    nothing_is_left(SOON, async |world| {
        for junk in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], &[0; 4096], b"GET / HTTP/1.1\r\n\r\n"] {
            for url in [world.exec(&["cat"], ALL), world.forward(&[])] {
                let mut io = connect(&url).await;
                assert_eq!(request(&mut io, "POST", &url, &SPDY).await.status, 101);
                io.write_all(junk).await.unwrap();
                settle().await;
            }
            let url = world.exec(&["cat"], ALL);
            let client = ws_client::Client::start(&url, V5).await;
            let mut io = client.socket.into_inner();
            io.write_all(junk).await.unwrap();
            settle().await;
        }
    });
}

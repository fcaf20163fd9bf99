//! Commands over WebSocket.

use std::io::ErrorKind;

use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Duration, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};
use tripod_streaming::{AttachRequest, ExecRequest, Streams};

use crate::{
    spdy_client::exit_code,
    world::{ABSENT, ALL, OUT, TERMINAL, World},
    ws_client::Client,
};

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

#[tokio::test]
async fn every_version_gives_output_and_the_end() {
    let world = World::start().await;
    for version in ["v5.", "v4.", "v3.", "v2.", "", "none"] {
        for encoding in ["", "base64."] {
            let protocol = if version == "none" { String::new() } else { format!("{version}{encoding}channel.k8s.io") };
            let url = world.sh("echo out; echo err >&2; exit 3", OUT);
            let told = Client::start(&url, &protocol).await.finish().await;
            assert_eq!((&*told.channels[1], &*told.channels[2]), (&b"out\n"[..], &b"err\n"[..]), "{protocol}");
            assert_eq!(told.code(), 1000);
            if protocol.starts_with("v5") || protocol.starts_with("v4") {
                assert_eq!(exit_code(&told.status()), 3, "{protocol}");
            } else {
                assert!(told.status().contains("exit code: 3"), "{protocol}: {told:?}");
            }
            let told = Client::start(&world.sh("true", OUT), &protocol).await.finish().await;
            assert!(told.status().is_empty() || exit_code(&told.status()) == 0, "{protocol}: {told:?}");
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn the_client_is_told_that_its_session_stands() {
    let world = World::start().await;
    for (streams, channel) in
        [(OUT, 1), (Streams { stdout: false, ..OUT }, 2), (Streams { stdin: true, ..Streams::default() }, 3)]
    {
        let mut client = Client::start(&world.exec(&["sleep", "9"], streams), V4).await;
        assert_eq!(client.next().await.unwrap(), (channel, vec![]));
    }
    world.stop().await;
}

#[tokio::test]
async fn the_fifth_version_can_end_the_input() {
    let world = World::start().await;
    for protocol in [V5, "v5.base64.channel.k8s.io"] {
        let mut client = Client::start(&world.exec(&["cat"], ALL), protocol).await;
        client.send(0, b"some input").await;
        client.end(0).await;
        let told = client.finish().await;
        assert_eq!((&*told.channels[1], exit_code(&told.status())), (&b"some input"[..], 0));
    }
    world.stop().await;
}

#[tokio::test]
async fn older_clients_end_the_input_by_leaving() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let url = world.sh(&format!("sleep 0.3; cat > {0}.new; echo done; mv {0}.new {0}", file.display()), ALL);
    let mut client = Client::start(&url, V4).await;
    let data = vec![b'x'; 3 << 20];
    client.send(0, &data).await;
    client.socket.close(None).await.unwrap();
    timeout(Duration::from_secs(20), async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert!(std::fs::read(&file).unwrap() == data);
    world.stop().await;
}

#[tokio::test]
async fn whoever_leaves_an_attachment_has_left() {
    let world = World::start().await;
    let url = world.server.attach_url(AttachRequest { container: "c".into(), streams: ALL }).unwrap();
    let mut client = Client::start(&url, V4).await;
    client.send(0, b"hello").await;
    client.until(1, "hello").await;
    client.socket.close(None).await.unwrap();
    timeout(Duration::from_secs(8), async {
        while world.active() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    world.stop().await;
}

#[tokio::test]
async fn megabytes_go_both_ways_and_arrive_as_they_were() {
    let world = World::start().await;
    for protocol in [V5, "v5.base64.channel.k8s.io"] {
        let client = Client::start(&world.exec(&["cat"], ALL), protocol).await;
        let data: Vec<u8> = (0..50 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let (mut sink, mut stream) = client.socket.split();
        let sent = data.clone();
        let sending = tokio::spawn(async move {
            for chunk in sent.chunks(1 << 20) {
                let message = if protocol == V5 {
                    Message::binary([&[0], chunk].concat())
                } else {
                    use base64::{Engine, engine::general_purpose::STANDARD};
                    Message::text(format!("0{}", STANDARD.encode(chunk)))
                };
                sink.send(message).await.unwrap();
            }
            sink.send(Message::binary(vec![255, 0])).await.unwrap();
        });
        let mut back = Vec::new();
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(data) if data[0] == 1 => back.extend_from_slice(&data[1..]),
                Message::Text(text) if text.starts_with('1') => {
                    use base64::{Engine, engine::general_purpose::STANDARD};
                    back.extend(STANDARD.decode(&text[1..]).unwrap());
                }
                _ => {}
            }
        }
        assert!(back == data, "{} bytes of {}", back.len(), data.len());
        sending.await.unwrap();
    }
    world.stop().await;
}

#[tokio::test]
async fn fragments_and_pings_are_taken() {
    let world = World::start().await;
    let mut client = Client::start(&world.exec(&["cat"], ALL), V5).await;
    let fragment = |code, data: &[u8], last| Message::Frame(Frame::message(data.to_vec(), OpCode::Data(code), last));
    client.socket.send(fragment(Data::Binary, b"\0one ", false)).await.unwrap();
    client.socket.send(Message::Ping("ping".into())).await.unwrap();
    client.socket.send(fragment(Data::Continue, b"two ", false)).await.unwrap();
    client.socket.send(fragment(Data::Continue, b"three", true)).await.unwrap();
    client.socket.send(Message::binary(vec![])).await.unwrap();
    client.send(9, b"nobody").await;
    let mut ponged = false;
    let mut text = Vec::new();
    while !(ponged && text == b"one two three") {
        match client.socket.next().await.unwrap().unwrap() {
            Message::Pong(data) => ponged = &data[..] == b"ping",
            Message::Binary(data) => text.extend_from_slice(&data[1..]),
            other => panic!("{other:?}"),
        }
    }
    client.end(0).await;
    assert_eq!(exit_code(&client.finish().await.status()), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_terminal_has_the_size_of_the_window() {
    let world = World::start().await;
    let script = "read line; stty size; exit 5";
    let mut client = Client::start(&world.sh(script, TERMINAL), V4).await;
    client.send(4, b"{\"Width\":120,\"Height\":40}").await;
    client.send(0, b"\n").await;
    client.until(1, "40 120").await;
    assert_eq!(exit_code(&client.finish().await.status()), 5);

    let mut client = Client::start(&world.sh(script, TERMINAL), V4).await;
    client.send(4, b"wide").await;
    let told = client.finish().await;
    assert!(told.status().contains("size of the terminal"), "{told:?}");
    assert_eq!(told.code(), 1007);
    world.stop().await;
}

#[tokio::test]
async fn refusals_are_told() {
    let world = World::start().await;
    let request = ExecRequest { container: ABSENT.into(), command: vec!["true".into()], streams: OUT };
    let told = Client::start(&world.server.exec_url(request).unwrap(), V5).await.finish().await;
    assert!(told.status().contains("container absent does not exist"), "{told:?}");
    assert_eq!(told.code(), 1000);
    world.stop().await;
}

#[tokio::test]
async fn clients_keep_to_the_protocol() {
    let world = World::start().await;
    let code = async |protocol: &str, message: Message| {
        let mut client = Client::start(&world.exec(&["cat"], ALL), protocol).await;
        client.socket.send(message).await.unwrap();
        let told = client.finish().await;
        assert!(told.status().contains("the client does not keep to the protocol"), "{told:?}");
        told.code()
    };
    assert_eq!(code(V5, Message::binary(vec![255])).await, 1002);
    assert_eq!(code(V5, Message::binary(vec![255, 0, 0])).await, 1002);
    assert_eq!(code("v4.base64.channel.k8s.io", Message::text("0###")).await, 1007);
    let junk = Frame::message(&b"\xff\xfe"[..], OpCode::Data(Data::Text), true);
    assert_eq!(code(V5, Message::Frame(junk)).await, 1007);
    let reserved = Frame::message(&b"x"[..], OpCode::Data(Data::Reserved(5)), true);
    assert_eq!(code(V5, Message::Frame(reserved)).await, 1002);
    world.stop().await;
}

#[tokio::test]
async fn messages_have_a_size() {
    let world = World::start().await;
    let client = Client::start(&world.exec(&["cat"], ALL), V5).await;
    let mut io = client.socket.into_inner();
    // The header of a binary message of 64 MiB.
    let header = [&[0x82, 0xff][..], &(64_u64 << 20).to_be_bytes(), &[0; 4]].concat();
    io.write_all(&header).await.unwrap();
    let mut answer = Vec::new();
    match timeout(Duration::from_secs(20), io.read_to_end(&mut answer)).await.unwrap() {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert!(answer.windows(2).any(|code| code == 1009_u16.to_be_bytes()), "{answer:?}");
    world.stop().await;
}

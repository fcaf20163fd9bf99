//! Limits of sessions.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Duration, Instant, sleep, timeout},
};
use tripod_streaming::Config;

use crate::{
    http::{SPDY, connect, rejected},
    spdy_client::{self, Client, exit_code, until},
    world::{ALL, OUT, World},
};

const V4: &str = "v4.channel.k8s.io";

#[tokio::test]
async fn so_many_sessions_last() {
    let world = World::with(Config { max_sessions: 1, ..Config::default() }).await;
    let mut client = Client::start(&world.exec(&["cat"], ALL), V4, ALL).await;
    let (answer, text) = rejected("POST", &world.sh("true", OUT), &SPDY).await;
    assert_eq!(answer.status, 503);
    assert!(text.contains("1 sessions last already"), "{text}");
    client.end().await;
    client.finish().await;
    while world.active() > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let (_, _, status) = Client::start(&world.sh("exit 2", OUT), V4, OUT).await.finish().await;
    assert_eq!(exit_code(&status), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_silent_session_ends() {
    let world = World::with(Config { idle_seconds: 3, ..Config::default() }).await;
    let mut client = Client::start(&world.exec(&["cat"], ALL), V4, ALL).await;
    let start = Instant::now();
    for _ in 0..8 {
        sleep(Duration::from_millis(500)).await;
        client.write(b"x").await;
        until(client.stdout.as_mut().unwrap(), "x").await;
    }
    let (_, _, status) = client.finish().await;
    assert!(status.contains("no byte has moved for 3 seconds"), "{status}");
    assert!((6900..60_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn streams_come_soon_or_not_at_all() {
    let world = World::with(Config { creation_seconds: 1, ..Config::default() }).await;
    let url = world.sh("true", OUT);
    let (connection, _incoming) = spdy_client::upgrade(connect(&url).await, &url, &[V4]).await;
    let (mut error, _writer) = spdy_client::open(&connection, &[("streamType", "error")]).await.split();
    let status = timeout(Duration::from_secs(20), spdy_client::all(Some(&mut error))).await.unwrap();
    let status = String::from_utf8(status).unwrap();
    assert!(status.contains("has not opened the streams"), "{status}");
    timeout(Duration::from_secs(20), connection.closed()).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn the_end_of_the_server_is_told() {
    let world = World::start().await;
    let client = Client::start(&world.exec(&["cat"], ALL), V4, ALL).await;
    let server = world.server.clone();
    let (told, ()) = tokio::join!(client.finish(), async {
        sleep(Duration::from_millis(100)).await;
        world.stop().await;
    });
    assert!(told.2.contains("the streaming server stops"), "{}", told.2);
    assert_eq!(server.sessions().iter().map(|sessions| sessions.active).sum::<u64>(), 0);
}

#[tokio::test]
async fn clients_say_soon_what_they_want() {
    let world = World::start().await;
    let slow = async |head: &str| {
        let mut io = connect(&world.sh("true", OUT)).await;
        io.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(60), io.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    };
    tokio::join!(slow(""), slow("GET /exec/token HTTP/1.1\r\nHost: x\r\n"));
    world.stop().await;
}

#[tokio::test]
async fn requests_have_a_size() {
    let world = World::start().await;
    let url = world.sh("true", OUT);
    let mut io = connect(&url).await;
    let head = format!("GET {} HTTP/1.1\r\nX: {}\r\n\r\n", crate::http::split(&url).1, "x".repeat(1 << 20));
    let mut answer = String::new();
    let exchange = async {
        // The server may have closed before all is sent.
        let _ = io.write_all(head.as_bytes()).await;
        let _ = io.read_to_string(&mut answer).await;
    };
    timeout(Duration::from_secs(20), exchange).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    world.stop().await;
}

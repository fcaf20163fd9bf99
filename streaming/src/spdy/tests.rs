//! Two connections against each other.

use std::time::Duration;

use tokio::{io::DuplexStream, time::timeout};

use super::*;

mod ends;
mod protocol;
mod random;
mod raw;
mod windows;
mod wire;

const LIMIT: Duration = Duration::from_secs(20);

/// A client and a server over a pipe of this many bytes.
fn pair(pipe: usize) -> ((Connection, Incoming), (Connection, Incoming)) {
    pair_with(pipe, Config::default(), Config::default())
}

fn pair_with(pipe: usize, client: Config, server: Config) -> ((Connection, Incoming), (Connection, Incoming)) {
    let (a, b): (DuplexStream, DuplexStream) = tokio::io::duplex(pipe);
    (Connection::new(a, Role::Client, client), Connection::new(b, Role::Server, server))
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("in time")
}

async fn all(reader: &mut Reader) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = reader.read().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[tokio::test]
async fn an_echo_both_ways() {
    let ((client, _none), (_server, mut incoming)) = pair(1000);
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let headers = Headers::from_iter([("streamType", "data"), ("port", "80")]);
    let echo = tokio::spawn(async move {
        let stream = incoming.next().await.unwrap();
        assert_eq!(stream.headers().get("streamtype"), Some("data"));
        stream.reply(&Headers::from_iter([("x", "y")]), false).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        while let Some(piece) = reader.read().await.unwrap() {
            writer.write(&piece).await.unwrap();
        }
        writer.finish().await.unwrap();
    });
    let mut stream = client.open(&headers, false).await.unwrap();
    assert_eq!(within(stream.replied()).await.unwrap().get("X"), Some("y"));
    let (mut reader, mut writer) = stream.split();
    let sent = data.clone();
    let send = tokio::spawn(async move {
        writer.write(&sent).await.unwrap();
        writer.finish().await.unwrap();
    });
    assert!(within(all(&mut reader)).await.unwrap() == data);
    within(send).await.unwrap();
    within(echo).await.unwrap();
    within(client.ping()).await.unwrap();
    let closed = client.closed();
    drop((client, reader, _none));
    assert!(matches!(within(closed).await, Ended::Local));
    assert!(matches!(within(_server.closed()).await, Ended::Eof | Ended::GoAway(_)));
}

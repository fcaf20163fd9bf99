//! Port-forward.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Duration, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tripod_streaming::{
    Config,
    spdy::{Connection, Incoming, Reader, Writer},
};

use crate::{
    http::connect,
    listener::{count, echo, greet, nobody},
    spdy_client::{all, open, upgrade},
    world::World,
    ws_client::{self, Client},
};

const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// One connection to a port.
struct Pair {
    error: Reader,
    reader: Reader,
    writer: Writer,
}

async fn pair(connection: &Connection, port: u16, request: Option<u32>) -> Pair {
    let (port, request) = (port.to_string(), request.map(|id| id.to_string()));
    let headers = |kind: &'static str| {
        let mut headers = vec![("streamType", kind), ("port", &*port)];
        headers.extend(request.as_deref().map(|id| ("requestID", id)));
        headers
    };
    let (error, error_writer) = open(connection, &headers("error")).await.split();
    error_writer.finish().await.unwrap();
    let (reader, writer) = open(connection, &headers("data")).await.split();
    Pair { error, reader, writer }
}

async fn spdy(world: &World) -> (Connection, Incoming) {
    let url = world.forward(&[]);
    upgrade(connect(&url).await, &url, &[PROTOCOL]).await
}

#[tokio::test]
async fn bytes_go_both_ways_with_their_ends() {
    let world = World::start().await;
    let (connection, _incoming) = spdy(&world).await;
    for request in [Some(0), None, Some(7), None] {
        let mut one = pair(&connection, count().await, request).await;
        one.writer.write(b"twelve bytes").await.unwrap();
        let Pair { mut error, mut reader, writer } = one;
        writer.finish().await.unwrap();
        assert_eq!(all(Some(&mut reader)).await, b"12");
        assert_eq!(all(Some(&mut error)).await, b"");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_pod_can_end_first() {
    let world = World::start().await;
    let (connection, _incoming) = spdy(&world).await;
    let mut one = pair(&connection, greet().await, Some(1)).await;
    assert_eq!(all(Some(&mut one.reader)).await, b"welcome");
    // As kubectl does once the pod has ended.
    one.reader.reset(tripod_streaming::spdy::Status::CANCEL);
    assert_eq!(all(Some(&mut one.error)).await, b"");
    world.stop().await;
}

#[tokio::test]
async fn many_connections_at_once() {
    let world = World::start().await;
    let (connection, _incoming) = spdy(&world).await;
    let port = echo().await;
    let mut clients = tokio::task::JoinSet::new();
    for id in 0..100_u32 {
        let connection = connection.clone();
        clients.spawn(async move {
            let mut one = pair(&connection, port, Some(id)).await;
            let data: Vec<u8> = (0..200_000).map(|n: u32| (n ^ id) as u8).collect();
            let mut back = Vec::new();
            for (chunk, sent) in data.chunks(10_000).zip(1..) {
                one.writer.write(chunk).await.unwrap();
                while back.len() < sent * 10_000 {
                    back.extend_from_slice(&one.reader.read().await.unwrap().unwrap());
                }
            }
            assert!(back == data);
            let Pair { mut error, mut reader, writer } = one;
            writer.finish().await.unwrap();
            assert_eq!(all(Some(&mut reader)).await, b"");
            assert_eq!(all(Some(&mut error)).await, b"");
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    world.stop().await;
}

#[tokio::test]
async fn megabytes_arrive_as_they_were() {
    let world = World::start().await;
    let (connection, _incoming) = spdy(&world).await;
    megabytes(&connection, 50).await;
    world.stop().await;
}

async fn megabytes(connection: &Connection, count: u32) {
    let one = pair(connection, echo().await, Some(1)).await;
    let data: Vec<u8> = (0..count << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let Pair { mut error, mut reader, mut writer } = one;
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        writer.write(&sent).await.unwrap();
        writer.finish().await.unwrap();
    });
    let back = all(Some(&mut reader)).await;
    assert!(back == data, "{} bytes of {}", back.len(), data.len());
    assert_eq!(all(Some(&mut error)).await, b"");
    sending.await.unwrap();
}

#[tokio::test]
async fn a_port_without_a_listener_is_an_error_of_its_own() {
    let world = World::start().await;
    let (connection, _incoming) = spdy(&world).await;
    let port = nobody();
    let mut one = pair(&connection, port, Some(1)).await;
    let error = String::from_utf8(all(Some(&mut one.error)).await).unwrap();
    assert!(error.contains(&format!("error forwarding port {port} to pod p")), "{error}");
    assert!(one.reader.read().await.is_err());
    megabytes(&connection, 1).await;
    world.stop().await;
}

#[tokio::test]
async fn streams_that_make_no_sense_are_refused() {
    let world = World::with(Config { creation_seconds: 1, ..Config::default() }).await;
    let (connection, _incoming) = spdy(&world).await;
    for headers in [
        &[("streamType", "data")][..],
        &[("port", "80")],
        &[("streamType", "stdin"), ("port", "80")],
        &[("streamType", "data"), ("port", "0"), ("requestID", "1")],
        &[("streamType", "data"), ("port", "70000"), ("requestID", "1")],
    ] {
        let mut all = tripod_streaming::spdy::Headers::new();
        headers.iter().for_each(|(name, value)| all.insert(name, value));
        let mut stream = connection.open(&all, false).await.unwrap();
        assert!(stream.replied().await.is_err(), "{headers:?}");
    }
    // A second one of a kind, and one whose partner does not come.
    let headers = [("streamType", "error"), ("port", "80"), ("requestID", "5")];
    let (mut error, _writer) = open(&connection, &headers).await.split();
    let (mut twice, _writer) = open(&connection, &headers).await.split();
    assert!(twice.read().await.is_err());
    let error = timeout(Duration::from_secs(20), all(Some(&mut error))).await.unwrap();
    assert!(String::from_utf8(error).unwrap().contains("has not come within 1 seconds"));
    let headers = [("streamType", "data"), ("port", "80"), ("requestID", "6")];
    let (mut data, _writer) = open(&connection, &headers).await.split();
    assert!(timeout(Duration::from_secs(20), data.read()).await.unwrap().is_err());
    megabytes(&connection, 1).await;
    world.stop().await;
}

#[tokio::test]
async fn inside_a_websocket() {
    let world = World::start().await;
    let url = world.forward(&[]);
    let socket = ws_client::upgrade(connect(&url).await, &url, TUNNEL).await;
    let config = tripod_streaming::spdy::Config::default();
    let (connection, _incoming) = Connection::new(Messages::new(socket), tripod_streaming::spdy::Role::Client, config);
    megabytes(&connection, 20).await;
    let Pair { mut error, mut reader, writer } = pair(&connection, greet().await, Some(9)).await;
    assert_eq!(all(Some(&mut reader)).await, b"welcome");
    writer.finish().await.unwrap();
    assert_eq!(all(Some(&mut error)).await, b"");
    world.stop().await;
}

#[tokio::test]
async fn over_channels_of_a_websocket() {
    let world = World::start().await;
    for protocol in ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""] {
        let ports = [echo().await, nobody(), echo().await];
        let mut client = Client::start(&world.forward(&ports), protocol).await;
        let mut channels = vec![Vec::new(); 6];
        client.send(0, b"first").await;
        client.send(4, b"second").await;
        client.send(2, b"to nobody").await;
        client.send(7, b"to nobody").await;
        while channels[0].len() < 7 || channels[4].len() < 8 || channels[3].len() < 10 || channels[5].len() < 2 {
            let (channel, data) = client.next().await.unwrap();
            channels[usize::from(channel)].extend_from_slice(&data);
        }
        for (channel, data) in channels.iter().enumerate() {
            assert_eq!(data[..2], ports[channel / 2].to_le_bytes(), "{protocol} {channel}");
        }
        assert_eq!((&channels[0][2..], &channels[4][2..]), (&b"first"[..], &b"second"[..]));
        assert!(String::from_utf8_lossy(&channels[3][2..]).contains("error forwarding port"));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_websocket_ends_with_its_connections() {
    let world = World::start().await;
    let ports = [greet().await, greet().await];
    let told = Client::start(&world.forward(&ports), "v4.channel.k8s.io").await.finish().await;
    assert_eq!((&told.channels[0][2..], &told.channels[2][2..]), (&b"welcome"[..], &b"welcome"[..]));
    assert_eq!(told.code(), 1000);
    let told = Client::start(&world.forward(&[1; 128]), "v4.channel.k8s.io").await.finish().await;
    assert_eq!(told.code(), 1008);
    world.stop().await;
}

/// The client's end of the tunnel.
struct Messages<T> {
    socket: tokio_tungstenite::WebSocketStream<T>,
    rest: Bytes,
}

impl<T> Messages<T> {
    fn new(socket: tokio_tungstenite::WebSocketStream<T>) -> Self {
        Self { socket, rest: Bytes::new() }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Messages<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(message))) => self.rest = message,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// Messages that have nothing to do with frames: a few bytes each, up to some kilobytes.
impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Messages<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let length = data.len().min(1 + data.len() % 4096);
        let message = Message::binary(data[..length].to_vec());
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}

//! What is fuzzed of SPDY; the tests run the committed corpus through the same functions.
#![allow(dead_code, reason = "each user takes one of the functions or both")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what is wrong must end in a panic")]

use std::time::Duration;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Handle},
    sync::oneshot,
    time::{sleep, timeout},
};
use tripod_streaming::BoxFuture;
use tripod_streaming::spdy::{
    Config, Connection, Decoder, Deflater, Error, Event, Frame, Headers, Limits, Malformed, Role, Status, Stream,
};

/// Time is virtual: it passes when nothing else can happen, so this is how a standstill is found.
const STANDSTILL: Duration = Duration::from_secs(3600);

/// The first byte says in which pieces the rest comes. However it comes, the same must be understood, and what was
/// understood must survive being written and read once more.
pub fn frames(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let (whole, result) = decode(bytes, bytes.len().max(1));
    let (pieces, same) = decode(bytes, usize::from(*size).max(1));
    assert_eq!(result, same, "other pieces, other end");
    assert_eq!(whole, pieces, "other pieces, other events");

    let mut deflater = Deflater::new();
    let mut again = BytesMut::new();
    let mut frames = Vec::new();
    for event in whole {
        if let Event::Frame(frame) = event
            && frame.encode(&mut deflater, &mut again).is_ok()
        {
            frames.push(Event::Frame(frame));
        }
    }
    let (back, result) = decode(&again, 7);
    assert_eq!((back, result), (frames, Ok(())), "written and read");
}

/// All events, with the pieces of each DATA frame put together.
fn decode(bytes: &[u8], size: usize) -> (Vec<Event>, Result<(), Malformed>) {
    let limits = Limits::default();
    let (mut decoder, mut buffer, mut events) = (Decoder::new(limits), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(event)) => {
                    check(&event, limits);
                    push(&mut events, event);
                }
                Ok(None) => break,
                Err(malformed) => return (events, Err(malformed)),
            }
        }
    }
    (events, Ok(()))
}

fn check(event: &Event, limits: Limits) {
    let Event::Frame(
        Frame::SynStream { headers, .. } | Frame::SynReply { headers, .. } | Frame::Headers { headers, .. },
    ) = event
    else {
        return;
    };
    let (count, bytes) = headers
        .iter()
        .fold((0, 4), |(count, bytes), (name, values)| (count + 1, bytes + 8 + name.len() + values.len()));
    assert!(count <= limits.header_count && bytes <= limits.header_bytes);
}

fn push(events: &mut Vec<Event>, event: Event) {
    if let Event::Data { stream, payload, fin } = &event
        && let Some(Event::Data { stream: before, payload: bytes, fin: last }) = events.last_mut()
        && stream == before
        && !*last
    {
        *bytes = [&bytes[..], payload].concat().into();
        *last = *fin;
    } else {
        events.push(event);
    }
}

/// The first byte says in which pieces the rest comes. Whatever comes, what we send is valid, nothing stands still,
/// and no task is left.
pub fn connection(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else { return };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (leave, left) = oneshot::channel();
        let gone: BoxFuture<()> = Box::pin(async { left.await.unwrap_or_default() });
        let config = Config { max_streams: 20, inbox: 1000, session: 1 << 16, gone: Some(gone), ..Config::default() };
        let (connection, mut incoming) = Connection::new(ours, Role::Server, config);
        let server = tokio::spawn(async move {
            // Not only what the peer does is tried.
            let opened = connection.open(&Headers::new(), false).await;
            while let Some(stream) = incoming.next().await {
                tokio::spawn(serve(stream));
            }
            drop(opened);
            connection.closed().await;
        });

        let (mut read, mut write) = tokio::io::split(theirs);
        let size = usize::from(*size).max(1);
        let send = async {
            for piece in bytes.chunks(size) {
                if write.write_all(piece).await.is_err() {
                    break;
                }
                if size % 2 == 1 {
                    tokio::task::yield_now().await;
                }
            }
            let _ = write.shutdown().await;
            let _ = leave.send(());
        };
        let receive = async {
            let (mut decoder, mut buffer) = (Decoder::new(Limits::default()), BytesMut::new());
            while matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
                while decoder.next(&mut buffer).expect("what we send is valid").is_some() {}
            }
        };
        timeout(STANDSTILL, async { tokio::join!(send, receive) }).await.expect("no standstill");
        timeout(STANDSTILL, server).await.expect("no standstill").unwrap();
        let metrics = Handle::current().metrics();
        timeout(STANDSTILL, async {
            while metrics.num_alive_tasks() > 0 {
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .expect("no task is left");
    });
}

/// Uses a stream in one of many ways.
async fn serve(stream: Stream) -> Result<(), Error> {
    match stream.id() / 2 % 6 {
        0 => {
            stream.reply(&Headers::from_iter([("a", "b")]), false).await?;
            let (mut reader, mut writer) = stream.split();
            while let Some(piece) = reader.read().await? {
                writer.write(&piece).await?;
            }
            writer.finish().await
        }
        1 => {
            let (reader, mut writer) = stream.split();
            drop(reader);
            writer.write(&[7; 3000]).await?;
            writer.finish().await
        }
        2 => {
            stream.reset(Status::REFUSED_STREAM);
            Ok(())
        }
        3 => {
            // Slow, and gives up in the middle of a write.
            let (mut reader, mut writer) = stream.split();
            sleep(Duration::from_secs(1)).await;
            reader.read().await?;
            let _ = timeout(Duration::from_millis(1), writer.write(&[1; 20_000])).await;
            writer.write(&[2; 10]).await
        }
        4 => {
            stream.reply(&Headers::new(), true).await?;
            sleep(Duration::from_secs(5)).await;
            let (mut reader, _writer) = stream.split();
            while reader.read().await?.is_some() {}
            Ok(())
        }
        _ => Ok(()),
    }
}

//! What a connection answers to a peer that is right, wrong or strange.

use super::{raw::*, *};

#[tokio::test(start_paused = true)]
async fn a_server_is_silent_until_its_client_speaks() {
    let (_connection, _incoming, mut raw) = server();
    assert!(timeout(Duration::from_millis(50), raw.event()).await.is_err());
    raw.send(Frame::Ping(1)).await;
    let settings = raw.event().await;
    let Some(Event::Frame(Frame::Settings { list, .. })) = settings else { panic!("{settings:?}") };
    assert_eq!(list.iter().map(|setting| setting.id).collect::<Vec<_>>(), [4, 7]);
    assert!(matches!(raw.event().await, Some(Event::Frame(Frame::WindowUpdate { stream: 0, .. }))));
    assert_eq!(raw.event().await, Some(Event::Frame(Frame::Ping(1))));
}

#[tokio::test]
async fn pings() {
    let (connection, _incoming, mut raw) = server();
    raw.send(Frame::Ping(0xffff_ffff)).await;
    assert_eq!(raw.frame().await, Some(Frame::Ping(0xffff_ffff)));
    // An answer that nobody asked for.
    raw.send(Frame::Ping(40)).await;
    let ping = tokio::spawn(async move { connection.ping().await });
    assert_eq!(raw.frame().await, Some(Frame::Ping(2)));
    raw.send(Frame::Ping(2)).await;
    within(ping).await.unwrap().unwrap();
}

#[tokio::test]
async fn malformed_bytes_end_the_connection() {
    for bytes in [
        &[0x80, 2, 0, 6, 0, 0, 0, 4][..],
        &[0x80, 3, 0, 6, 0, 0, 0, 5],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        // A window update of nothing, and settings with a window that is too large.
        &[0x80, 3, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0x80, 0, 0, 0],
    ] {
        let (connection, mut incoming, mut raw) = server();
        raw.bytes(bytes).await;
        raw.protocol_error().await;
        assert!(matches!(within(connection.closed()).await, Ended::Malformed(_)), "{bytes:?}");
        assert!(within(incoming.next()).await.is_none());
        assert!(matches!(connection.ping().await, Err(Error::Ended(Ended::Malformed(_)))));
    }
}

#[tokio::test]
async fn stream_ids_grow_and_are_the_peers() {
    for (first, second) in [(5, 3), (5, 4), (2, 1)] {
        let (connection, _incoming, mut raw) = server();
        raw.send(syn(first)).await;
        raw.send(syn(second)).await;
        raw.protocol_error().await;
        assert!(matches!(within(connection.closed()).await, Ended::Malformed(Malformed::StreamId(_))));
    }
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(5)).await;
    raw.send(syn(5)).await;
    assert_eq!(raw.frame().await, Some(rst(5, Status::PROTOCOL_ERROR)));
    let (mut reader, _writer) = within(incoming.next()).await.unwrap().split();
    assert!(matches!(reader.read().await, Err(Error::Cancelled { status: Status::PROTOCOL_ERROR, .. })));
    raw.send(syn(7)).await;
    assert_eq!(within(incoming.next()).await.unwrap().id(), 7);
}

#[tokio::test]
async fn streams_that_there_are_not() {
    let (_connection, _incoming, mut raw) = server();
    raw.data(9, b"x", false).await;
    assert_eq!(raw.frame().await, Some(rst(9, Status::INVALID_STREAM)));
    // Said once, not for every frame.
    raw.data(9, b"x", false).await;
    raw.send(Frame::Headers { stream: 11, fin: false, headers: Headers::new() }).await;
    assert_eq!(raw.frame().await, Some(rst(11, Status::INVALID_STREAM)));
    raw.send(reply(13)).await;
    assert_eq!(raw.frame().await, Some(rst(13, Status::INVALID_STREAM)));
    // These are never answered.
    raw.send(rst(15, Status::CANCEL)).await;
    raw.send(Frame::WindowUpdate { stream: 17, delta: 5 }).await;
    raw.send(Frame::Ping(1)).await;
    assert_eq!(raw.frame().await, Some(Frame::Ping(1)));
}

#[tokio::test]
async fn a_reply_to_a_stream_of_the_peer() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    raw.send(reply(1)).await;
    assert_eq!(raw.frame().await, Some(rst(1, Status::PROTOCOL_ERROR)));
    assert!(within(incoming.next()).await.unwrap().reply(&Headers::new(), false).await.is_err());
}

#[tokio::test]
async fn data_after_the_end() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    raw.data(1, b"abc", true).await;
    raw.data(1, b"d", false).await;
    assert_eq!(raw.frame().await, Some(rst(1, Status::STREAM_ALREADY_CLOSED)));
    let (mut reader, mut writer) = within(incoming.next()).await.unwrap().split();
    assert!(matches!(writer.write(b"x").await, Err(Error::Cancelled { .. })));
    assert_eq!(all(&mut reader).await.unwrap(), b"");
}

#[tokio::test]
async fn replies_to_our_streams() {
    let (connection, _incoming, mut raw) = against(Role::Client, Config::default(), 1 << 20);
    let mut streams = Vec::new();
    for id in [1, 3, 5] {
        streams.push(connection.open(&Headers::new(), false).await.unwrap());
        assert!(matches!(raw.frame().await, Some(Frame::SynStream { stream, .. }) if stream == id));
    }
    raw.data(1, b"too early", false).await;
    assert_eq!(raw.frame().await, Some(rst(1, Status::PROTOCOL_ERROR)));
    raw.send(reply(3)).await;
    raw.send(reply(3)).await;
    assert_eq!(raw.frame().await, Some(rst(3, Status::STREAM_IN_USE)));
    // The reply of a stream that was reset right after.
    assert!(streams[1].replied().await.is_ok());
    assert!(matches!(streams[0].replied().await, Err(Error::Cancelled { stream: 1, .. })));
    raw.send(Frame::SynReply { stream: 5, fin: true, headers: Headers::new() }).await;
    let (mut reader, _writer) = streams.pop().unwrap().split();
    assert_eq!(within(reader.read()).await.unwrap(), None);
    assert!(matches!(streams[0].reply(&Headers::new(), false).await, Err(Error::Cancelled { .. })));
}

#[tokio::test]
async fn no_more_streams_than_allowed() {
    let config = Config { max_streams: 2, ..Config::default() };
    let (_connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
    for stream in [1, 3, 5] {
        raw.send(syn(stream)).await;
    }
    assert_eq!(raw.frame().await, Some(rst(5, Status::REFUSED_STREAM)));
    // What is still under way for it is no error.
    raw.data(5, b"x", false).await;
    drop(within(incoming.next()).await.unwrap());
    assert_eq!(raw.frame().await, Some(rst(1, Status::CANCEL)));
    raw.send(syn(7)).await;
    raw.settled().await;
    assert_eq!([within(incoming.next()).await.unwrap().id(), within(incoming.next()).await.unwrap().id()], [3, 7]);
}

#[tokio::test]
async fn wrong_headers_end_only_their_stream() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    // A name in upper case.
    let block = [0, 0, 0, 1, 0, 0, 0, 1, b'A', 0, 0, 0, 0];
    raw.block(1, &[0, 0, 0, 3, 0, 0, 0, 0, 0, 0], &block).await;
    assert_eq!(raw.frame().await, Some(rst(3, Status::PROTOCOL_ERROR)));
    raw.block(8, &[0, 0, 0, 1], &block).await;
    assert_eq!(raw.frame().await, Some(rst(1, Status::PROTOCOL_ERROR)));
    raw.send(syn(5)).await;
    raw.settled().await;
    assert_eq!([within(incoming.next()).await.unwrap().id(), within(incoming.next()).await.unwrap().id()], [1, 5]);
}

#[tokio::test]
async fn a_bomb_ends_the_connection() {
    let (connection, _incoming, mut raw) = server();
    let mut stream = flate2::Compress::new(flate2::Compression::best(), true);
    let mut compressed = Vec::with_capacity(1 << 20);
    stream.compress_vec(&vec![0; 8 << 20], &mut compressed, flate2::FlushCompress::Sync).unwrap();
    let length = u32::try_from(compressed.len() + 10).unwrap().to_be_bytes();
    raw.bytes(&[0x80, 3, 0, 1, 0, length[1], length[2], length[3], 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    raw.bytes(&compressed).await;
    assert_eq!(raw.frame().await, Some(rst(1, Status::FRAME_TOO_LARGE)));
    raw.protocol_error().await;
    assert!(matches!(within(connection.closed()).await, Ended::Malformed(Malformed::Bomb { stream: 1, .. })));
}

#[tokio::test]
async fn unidirectional_streams() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(Frame::SynStream {
        stream: 1,
        associated: 0,
        priority: 0,
        fin: false,
        unidirectional: true,
        headers: Headers::new(),
    })
    .await;
    raw.data(1, b"abc", true).await;
    let stream = within(incoming.next()).await.unwrap();
    assert!(matches!(stream.reply(&Headers::new(), false).await, Err(Error::NoReply(1))));
    let (mut reader, mut writer) = stream.split();
    assert!(matches!(writer.write(b"x").await, Err(Error::Finished(1))));
    assert_eq!(within(all(&mut reader)).await.unwrap(), b"abc");
    drop((reader, writer));
    raw.send(Frame::Ping(1)).await;
    assert_eq!(raw.frame().await, Some(Frame::Ping(1)), "a stream that ended well is not reset");
}

#[tokio::test]
async fn data_before_a_reply_sends_one() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    let stream = within(incoming.next()).await.unwrap();
    let (_reader, mut writer) = stream.split();
    writer.write(b"abc").await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(raw.frame().await, Some(reply(1)));
    assert_eq!(raw.piece().await, (1, b"abc".to_vec(), false));
    assert_eq!(raw.piece().await, (1, Vec::new(), true));
}

#[tokio::test]
async fn a_reply_that_ends_our_side() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    let stream = within(incoming.next()).await.unwrap();
    stream.reply(&Headers::new(), true).await.unwrap();
    assert!(matches!(stream.reply(&Headers::new(), false).await, Err(Error::NoReply(1))));
    assert_eq!(raw.frame().await, Some(Frame::SynReply { stream: 1, fin: true, headers: Headers::new() }));
    let (_reader, writer) = stream.split();
    assert!(matches!(writer.finish().await, Err(Error::Finished(1))));
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers() {
    let (connection, _incoming, mut raw) = against(Role::Server, Config::default(), 4096);
    let flood = async {
        for id in 0..100_000 {
            raw.send(Frame::Ping(id * 2 + 1)).await;
        }
    };
    let (ended, ()) = tokio::join!(connection.closed(), flood);
    assert!(matches!(ended, Ended::Flood(_)), "{ended}");
}

#[tokio::test]
async fn goodbye_of_the_peer() {
    let (connection, _incoming, mut raw) = against(Role::Client, Config::default(), 1 << 20);
    let first = connection.open(&Headers::new(), false).await.unwrap();
    let mut second = connection.open(&Headers::new(), false).await.unwrap();
    raw.send(reply(1)).await;
    raw.send(Frame::GoAway { last_good: 1, status: GoAwayStatus::OK }).await;
    let refused = within(second.replied()).await;
    assert!(matches!(refused, Err(Error::Reset { stream: 3, status: Status::REFUSED_STREAM })), "{refused:?}");
    assert!(matches!(connection.open(&Headers::new(), false).await, Err(Error::GoingAway)));
    drop(second);
    // The first goes on to its end, and the connection ends with it.
    let (mut reader, mut writer) = first.split();
    writer.write(b"x").await.unwrap();
    raw.data(1, b"y", true).await;
    assert_eq!(within(all(&mut reader)).await.unwrap(), b"y");
    writer.finish().await.unwrap();
    assert!(matches!(within(connection.closed()).await, Ended::GoAway(GoAwayStatus::OK)));
    assert_eq!(raw.piece().await.1, b"x");
    assert_eq!(raw.piece().await, (1, Vec::new(), true));
    assert_eq!(raw.frame().await, Some(Frame::GoAway { last_good: 0, status: GoAwayStatus::OK }));
    assert_eq!(raw.event().await, None);
}

#[tokio::test]
async fn our_goodbye() {
    let (connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    let stream = within(incoming.next()).await.unwrap();
    connection.go_away(GoAwayStatus::OK).await.unwrap();
    assert_eq!(raw.frame().await, Some(Frame::GoAway { last_good: 1, status: GoAwayStatus::OK }));
    // Ignored, with all that belongs to it.
    raw.send(syn(3)).await;
    raw.data(3, b"x", false).await;
    raw.data(1, b"abc", true).await;
    let (mut reader, writer) = stream.split();
    assert_eq!(within(all(&mut reader)).await.unwrap(), b"abc");
    writer.finish().await.unwrap();
    assert!(matches!(within(connection.closed()).await, Ended::GoAway(_)));
    assert!(within(incoming.next()).await.is_none());
    assert_eq!(raw.frame().await, Some(reply(1)));
    assert_eq!(raw.piece().await, (1, Vec::new(), true));
    assert_eq!(raw.event().await, None);
}

#[tokio::test]
async fn the_peers_limit_of_streams() {
    let (connection, _incoming, mut raw) = against(Role::Client, Config::default(), 1 << 20);
    let setting = |value| Setting { flags: 0, id: Setting::MAX_CONCURRENT_STREAMS, value };
    raw.send(Frame::Settings { clear: false, list: vec![setting(1), setting(100)] }).await;
    raw.settled().await;
    let first = connection.open(&Headers::new(), false).await.unwrap();
    assert!(matches!(connection.open(&Headers::new(), false).await, Err(Error::TooManyStreams(1))));
    drop(first);
    assert_eq!(connection.open(&Headers::new(), true).await.unwrap().id(), 3);
}

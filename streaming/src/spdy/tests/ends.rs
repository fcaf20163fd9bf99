//! How streams and connections end, at every point at which they can.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{raw::*, *};

#[tokio::test]
async fn what_is_dropped_is_reset() {
    let (_connection, mut incoming, mut raw) = server();
    // The whole stream, the writer, and the reader, which alone does nothing until the writer is done.
    for (stream, which) in [(1, 0), (3, 1), (5, 2)] {
        raw.send(syn(stream)).await;
        let whole = within(incoming.next()).await.unwrap();
        if which == 0 {
            drop(whole);
            assert_eq!(raw.frame().await, Some(rst(stream, Status::CANCEL)));
            continue;
        }
        whole.reply(&Headers::new(), false).await.unwrap();
        assert_eq!(raw.frame().await, Some(reply(stream)));
        let (mut reader, writer) = whole.split();
        if which == 1 {
            drop(writer);
            assert_eq!(raw.frame().await, Some(rst(stream, Status::CANCEL)));
            assert!(matches!(within(reader.read()).await, Err(Error::Cancelled { .. })));
        } else {
            drop(reader);
            raw.data(stream, b"nobody wants this", false).await;
            raw.settled().await;
            within(writer.finish()).await.unwrap();
            assert_eq!(raw.piece().await, (stream, Vec::new(), true));
            assert_eq!(raw.frame().await, Some(rst(stream, Status::CANCEL)));
        }
    }
}

#[tokio::test]
async fn what_came_before_a_reset_is_read() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    raw.data(1, b"abc", false).await;
    raw.send(rst(1, Status::CANCEL)).await;
    raw.send(syn(3)).await;
    raw.data(3, b"def", true).await;
    raw.send(rst(3, Status::INTERNAL_ERROR)).await;
    raw.settled().await;
    let (mut reader, mut writer) = within(incoming.next()).await.unwrap().split();
    assert_eq!(within(reader.read()).await.unwrap().unwrap(), "abc");
    assert!(matches!(reader.read().await, Err(Error::Reset { stream: 1, status: Status::CANCEL })));
    assert!(matches!(writer.write(b"x").await, Err(Error::Reset { stream: 1, .. })));
    // A side that was finished before is finished.
    let (mut reader, writer) = within(incoming.next()).await.unwrap().split();
    assert_eq!(within(all(&mut reader)).await.unwrap(), b"def");
    assert!(matches!(writer.finish().await, Err(Error::Reset { stream: 3, status: Status::INTERNAL_ERROR })));
}

#[tokio::test]
async fn streams_that_nobody_accepts() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    raw.settled().await;
    drop(within(incoming.next()).await);
    drop(incoming);
    assert_eq!(raw.frame().await, Some(rst(1, Status::CANCEL)));
    raw.send(syn(3)).await;
    assert_eq!(raw.frame().await, Some(rst(3, Status::REFUSED_STREAM)));
}

#[tokio::test]
async fn the_last_handle_says_goodbye_after_everything_else() {
    let (connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    let (reader, mut writer) = within(incoming.next()).await.unwrap().split();
    let closed = connection.closed();
    drop((connection, incoming));
    within(writer.write(&[1; 100_000])).await.unwrap();
    within(writer.finish()).await.unwrap();
    drop(reader);
    assert!(matches!(within(closed).await, Ended::Local));
    let mut got = 0;
    loop {
        let (_, piece, fin) = raw.piece().await;
        got += piece.len();
        if fin {
            break;
        }
    }
    assert_eq!(got, 100_000);
    assert_eq!(raw.frame().await, Some(rst(1, Status::CANCEL)));
    assert_eq!(raw.frame().await, Some(Frame::GoAway { last_good: 1, status: GoAwayStatus::OK }));
    assert_eq!(raw.event().await, None);
}

/// Every kind of waiting ends when the peer is gone, however it goes.
#[tokio::test]
async fn a_peer_that_vanishes() {
    for truncated in [false, true] {
        let (connection, mut incoming, mut raw) = against(Role::Server, Config::default(), 4096);
        for stream in [1, 3, 5] {
            raw.send(syn(stream)).await;
        }
        raw.settled().await;
        let mut opened = connection.open(&Headers::new(), false).await.unwrap();
        let (mut reader, _w1) = within(incoming.next()).await.unwrap().split();
        let (_r3, mut blocked) = within(incoming.next()).await.unwrap().split();
        let (_r5, mut behind) = within(incoming.next()).await.unwrap().split();
        let others = connection.clone();
        let headers = Headers::from_iter([("a", "b")]);
        let waits = async {
            tokio::join!(
                reader.read(),
                opened.replied(),
                blocked.write(&[0; 1 << 20]),
                behind.write(&[0; 1 << 20]),
                others.open(&headers, true),
                others.ping(),
                incoming.next(),
                connection.closed(),
            )
        };
        let vanish = async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if truncated {
                raw.bytes(&[0, 0, 0, 1, 0, 0]).await;
            }
        };
        let ((read, replied, wrote, behind, open, ping, next, ended), ()) =
            within(async { tokio::join!(waits, vanish) }).await;
        let over = |error: Option<Error>| assert!(matches!(error, Some(Error::Ended(_))), "{error:?}");
        over(read.err());
        over(replied.err());
        over(wrote.err());
        over(behind.err());
        over(open.err());
        over(ping.err());
        assert!(next.is_none());
        let io = matches!(ended, Ended::Io(_));
        assert!(io || matches!((truncated, &ended), (true, Ended::Truncated) | (false, Ended::Eof)), "{ended}");
    }
}

/// A peer that does not read blocks only those that write.
#[tokio::test]
async fn a_blocked_writer_does_not_stop_the_reader() {
    let (_connection, mut incoming, mut raw) = against(Role::Server, Config::default(), 1000);
    raw.send(syn(1)).await;
    let (mut reader, mut writer) = within(incoming.next()).await.unwrap().split();
    let write = tokio::spawn(async move { writer.write(&[9; 100_000]).await.map(|()| writer) });
    for i in 0..200_u32 {
        raw.send(Frame::Ping(2 * i + 1)).await;
        raw.data(1, &[1; 1000], false).await;
        let mut got = 0;
        while got < 1000 {
            got += within(reader.read()).await.unwrap().unwrap().len();
        }
    }
    assert!(!write.is_finished());
    // The answers come as soon as the frame that was under way is out.
    let (mut pings, mut bytes) = (0, 0);
    while pings < 200 || bytes < 100_000 {
        match raw.event().await {
            Some(Event::Frame(Frame::Ping(_))) => pings += 1,
            Some(Event::Data { payload, .. }) => bytes += payload.len(),
            Some(_) => {}
            None => panic!("the connection ended"),
        }
    }
    within(write).await.unwrap().unwrap();
}

/// Futures that are dropped at any point: frames stay whole, reads lose nothing, what was not sent is given back.
#[tokio::test]
async fn dropped_futures() {
    let (connection, mut incoming, mut raw) = against(Role::Server, Config::default(), 700);
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    raw.send(syn(1)).await;
    let (mut reader, mut writer) = within(incoming.next()).await.unwrap().split();
    let ours = tokio::spawn(async move {
        for i in 0..300_u64 {
            let _ = timeout(Duration::from_micros(i * 7), writer.write(&[5; 3000])).await;
            let _ = timeout(Duration::from_micros(i), connection.open(&Headers::from_iter([("n", "1")]), false)).await;
            while let Ok(Ok(Some(piece))) = timeout(Duration::from_micros(i), reader.read()).await {
                counted.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }
        writer.write(b"end").await.unwrap();
        writer.finish().await.unwrap();
        while let Some(piece) = reader.read().await.unwrap() {
            counted.fetch_add(piece.len(), Ordering::Relaxed);
        }
    });
    let mut last = Vec::new();
    for i in 0.. {
        match raw.event().await {
            Some(Event::Data { stream: 1, payload, fin }) => {
                assert!(payload.iter().all(|byte| *byte == 5) || &payload[..] == b"end" || last.starts_with(b"e"));
                last = payload.to_vec();
                if fin {
                    break;
                }
            }
            Some(_) => {}
            None => panic!("the connection ended"),
        }
        if i < 100 {
            raw.data(1, &[1; 10], false).await;
        }
        if i == 100 {
            raw.data(1, b"", true).await;
        }
    }
    within(ours).await.unwrap();
    assert_eq!(reads.load(Ordering::Relaxed) % 10, 0);
    assert!(reads.load(Ordering::Relaxed) > 0);
}

/// A peer that has gone is noticed although its data cannot be taken, but not before what it sent had its chance.
#[tokio::test(start_paused = true)]
async fn gone_behind_a_full_stream() {
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let gone: crate::BoxFuture<()> = Box::pin(async move {
        let _ = told.await;
    });
    let config = Config { inbox: 100, gone: Some(gone), ..Config::default() };
    let (connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
    raw.send(syn(1)).await;
    for i in 0..10 {
        raw.data(1, &[i; 100], false).await;
    }
    let (mut reader, _writer) = within(incoming.next()).await.unwrap().split();
    let closed = tokio::spawn(connection.closed());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!closed.is_finished(), "a slow reader alone is no reason");
    drop(tell);
    // Slowly, but it is read.
    for i in 0..5 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(reader.read().await.unwrap().unwrap(), vec![i; 100]);
    }
    assert!(!closed.is_finished());
    assert!(matches!(within(closed).await.unwrap(), Ended::Gone));
    assert_eq!(reader.read().await.unwrap().unwrap(), vec![5; 100]);
    assert!(matches!(reader.read().await, Err(Error::Ended(Ended::Gone))));
}

/// Whole 16 MB frames, of which nothing waits to be whole.
#[tokio::test]
async fn frames_of_any_size_come_in_pieces() {
    let (_connection, mut incoming, mut raw) = against(Role::Server, Config::default(), 1 << 16);
    raw.send(syn(1)).await;
    let (mut reader, _writer) = within(incoming.next()).await.unwrap().split();
    raw.bytes(&[0, 0, 0, 1, 1, 0xff, 0xff, 0xff]).await;
    raw.bytes(b"first").await;
    assert_eq!(within(reader.read()).await.unwrap().unwrap(), "first");
    let rest = tokio::spawn(async move {
        raw.bytes(&vec![3; 0xff_ffff - 5]).await;
        raw
    });
    assert_eq!(within(all(&mut reader)).await.unwrap().len(), 0xff_ffff - 5);
    within(rest).await.unwrap();
}

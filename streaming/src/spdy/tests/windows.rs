//! Flow control, with peers that know it and peers that do not.

use super::{raw::*, *};

fn window(value: u32) -> Frame {
    let setting = Setting { flags: 0, id: Setting::INITIAL_WINDOW_SIZE, value };
    Frame::Settings { clear: false, list: vec![setting] }
}

/// The next window update for this stream.
async fn update(raw: &mut Raw, wanted: u32) -> u32 {
    loop {
        match raw.event().await {
            Some(Event::Frame(Frame::WindowUpdate { stream, delta })) if stream == wanted => return delta,
            Some(Event::Frame(_)) => {}
            other => panic!("{other:?} instead of a window update"),
        }
    }
}

#[tokio::test]
async fn a_peers_windows_bind_us_once_it_shows_them() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    let (_reader, mut writer) = within(incoming.next()).await.unwrap().split();
    // More than the specification's window, to a peer that has not said anything.
    within(writer.write(&[1; 100_000])).await.unwrap();
    raw.exactly(1, 100_000).await;
    // Then it turns out to count.
    raw.send(Frame::WindowUpdate { stream: 0, delta: 1 << 20 }).await;
    raw.send(Frame::WindowUpdate { stream: 1, delta: 34_464 + 10 }).await;
    raw.settled().await;
    let write = tokio::spawn(async move {
        writer.write(&[2; 25]).await.unwrap();
        writer.finish().await.unwrap();
    });
    assert_eq!(raw.exactly(1, 10).await, vec![2; 10]);
    raw.settled().await;
    assert!(!write.is_finished());
    // A larger initial window is one for streams that there are, too.
    raw.send(window(65_536 + 10)).await;
    assert_eq!(raw.exactly(1, 10).await, vec![2; 10]);
    raw.send(Frame::WindowUpdate { stream: 1, delta: 100 }).await;
    assert_eq!(raw.exactly(1, 5).await, vec![2; 5]);
    assert_eq!(raw.piece().await, (1, Vec::new(), true));
    within(write).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn windows_of_the_specification_bind_a_client_until_the_peer_has_spoken() {
    for (settings, more) in [(Some(window(65_536 + 10)), 10), (None, 34_464)] {
        let (connection, _incoming, mut raw) = against(Role::Client, Config::default(), 1 << 20);
        let (_reader, mut writer) = within(connection.open(&Headers::new(), false)).await.unwrap().split();
        let write = tokio::spawn(async move { writer.write(&[1; 100_000]).await });
        raw.exactly(1, 65_536).await;
        let silent = timeout(Duration::from_millis(50), raw.piece()).await;
        assert!(silent.is_err(), "{silent:?}");
        if let Some(settings) = settings {
            raw.send(settings).await;
            raw.send(Frame::WindowUpdate { stream: 0, delta: 1 << 20 }).await;
        } else {
            // A peer that begins with anything else knows none.
            raw.send(reply(1)).await;
        }
        raw.exactly(1, more).await;
        if more > 10 {
            within(write).await.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_smaller_window_can_go_below_zero() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(window(100)).await;
    raw.send(syn(1)).await;
    let (_reader, mut writer) = within(incoming.next()).await.unwrap().split();
    within(writer.write(&[1; 100])).await.unwrap();
    raw.exactly(1, 100).await;
    raw.send(window(0)).await;
    raw.send(Frame::WindowUpdate { stream: 1, delta: 100 }).await;
    raw.settled().await;
    // The end of a stream needs no window.
    let late = timeout(Duration::from_millis(50), writer.write(b"x")).await;
    assert!(late.is_err());
    within(writer.finish()).await.unwrap();
    assert_eq!(raw.piece().await, (1, Vec::new(), true));
}

#[tokio::test]
async fn the_connections_window_is_shared() {
    let (_connection, mut incoming, mut raw) = server();
    raw.send(window(1 << 20)).await;
    raw.send(syn(1)).await;
    raw.send(syn(3)).await;
    let (_r1, mut first) = within(incoming.next()).await.unwrap().split();
    let (_r2, mut second) = within(incoming.next()).await.unwrap().split();
    within(first.write(&[1; 65_536])).await.unwrap();
    let second = tokio::spawn(async move { second.write(&[2; 10]).await.map(|()| second) });
    raw.exactly(1, 65_536).await;
    raw.settled().await;
    assert!(!second.is_finished());
    raw.send(Frame::WindowUpdate { stream: 0, delta: 10 }).await;
    assert_eq!(raw.exactly(3, 10).await, vec![2; 10]);
    within(second).await.unwrap().unwrap();
}

#[tokio::test]
async fn windows_that_grow_too_large() {
    let (connection, mut incoming, mut raw) = server();
    raw.send(syn(1)).await;
    raw.send(Frame::WindowUpdate { stream: 1, delta: 0x7fff_ffff }).await;
    assert_eq!(raw.frame().await, Some(rst(1, Status::FLOW_CONTROL_ERROR)));
    raw.send(syn(3)).await;
    raw.send(Frame::WindowUpdate { stream: 3, delta: 0 }).await;
    assert_eq!(raw.frame().await, Some(rst(3, Status::PROTOCOL_ERROR)));
    raw.send(Frame::WindowUpdate { stream: 0, delta: 0x7fff_ffff }).await;
    raw.protocol_error().await;
    assert!(matches!(within(connection.closed()).await, Ended::Malformed(Malformed::WindowOverflow)));
    drop(within(incoming.next()).await);
}

#[tokio::test]
async fn updates_follow_what_is_consumed() {
    let config = Config { inbox: 1000, session: 1 << 16, ..Config::default() };
    let (_connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
    raw.send(syn(1)).await;
    raw.data(1, &[1; 499], false).await;
    let (mut reader, _writer) = within(incoming.next()).await.unwrap().split();
    assert_eq!(within(reader.read()).await.unwrap().unwrap().len(), 499);
    raw.data(1, &[1; 100], false).await;
    within(reader.read()).await.unwrap();
    assert_eq!(update(&mut raw, 1).await, 599);
    // The connection's, over several streams, and for what was thrown away.
    drop(reader);
    for _ in 0..32 {
        raw.data(1, &[1; 1000], false).await;
        assert_eq!(update(&mut raw, 1).await, 1000);
    }
    raw.data(1, &[1; 169], false).await;
    assert_eq!(update(&mut raw, 0).await, 32_768);
}

#[tokio::test]
async fn a_peer_that_breaks_its_promise() {
    let config = Config { inbox: 70_000, session: 1 << 20, ..Config::default() };
    let (_connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
    raw.send(window(1 << 20)).await;
    raw.send(syn(1)).await;
    raw.data(1, &[1; 70_000], false).await;
    raw.data(1, b"x", false).await;
    assert_eq!(raw.frame().await, Some(rst(1, Status::FLOW_CONTROL_ERROR)));
    let (mut reader, _writer) = within(incoming.next()).await.unwrap().split();
    assert!(matches!(within(reader.read()).await, Err(Error::Cancelled { .. })));

    let config = Config { session: 1 << 16, ..Config::default() };
    let (connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
    raw.send(window(1 << 20)).await;
    for stream in (1..200).step_by(2) {
        raw.send(syn(stream)).await;
        raw.data(stream, &[1; 1000], false).await;
    }
    assert!(matches!(within(connection.closed()).await, Ended::Malformed(Malformed::Overrun)));
    let (mut reader, _writer) = within(incoming.next()).await.unwrap().split();
    assert_eq!(within(reader.read()).await.unwrap().unwrap().len(), 1000);
    assert!(matches!(within(reader.read()).await, Err(Error::Ended(Ended::Malformed(_)))));
}

/// One stream that nobody reads holds a peer without flow control back; nothing is lost, and no update is wasted on it.
#[tokio::test(start_paused = true)]
async fn a_stalled_stream() {
    let config = Config { inbox: 10_000, ..Config::default() };
    let (_connection, mut incoming, raw) = against(Role::Server, config, 4096);
    let send = tokio::spawn(async move {
        let mut raw = raw;
        raw.send(syn(1)).await;
        raw.send(syn(3)).await;
        for i in 0..100_u8 {
            raw.data(1, &[i; 200], false).await;
            raw.data(3, &[i; 100], false).await;
        }
        raw.data(1, b"", true).await;
        raw.data(3, b"", true).await;
        raw
    });
    let (mut stalled, _w1) = within(incoming.next()).await.unwrap().split();
    let (mut other, _w3) = within(incoming.next()).await.unwrap().split();
    // The other one goes on until there is no room for the first.
    let mut got = 0;
    while let Ok(piece) = timeout(Duration::from_millis(100), other.read()).await {
        got += piece.unwrap().unwrap().len();
    }
    assert_eq!(got, 5000);
    assert!(!send.is_finished());
    let wanted: Vec<u8> = (0..100).flat_map(|i| [i; 200]).collect();
    let (first, second) = within(async { tokio::join!(all(&mut stalled), all(&mut other)) }).await;
    assert!(first.unwrap() == wanted);
    assert_eq!(second.unwrap().len(), 5000);
    within(send).await.unwrap();
}

/// What was not read when its reader left is given back to the peer's window, too.
#[tokio::test]
async fn an_unread_rest_is_credited() {
    let config = Config { inbox: 1000, ..Config::default() };
    let (_connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
    raw.send(syn(1)).await;
    raw.data(1, &[1; 900], false).await;
    raw.settled().await;
    let (reader, _writer) = within(incoming.next()).await.unwrap().split();
    drop(reader);
    assert_eq!(update(&mut raw, 1).await, 900);
}

/// What lets us write may stand behind more data than we keep, so it must be reached.
#[tokio::test]
async fn an_update_behind_data() {
    let config = Config { inbox: 1000, ..Config::default() };
    let (_connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
    raw.send(window(10)).await;
    raw.send(syn(1)).await;
    for _ in 0..60 {
        raw.data(1, &[1; 1000], false).await;
    }
    raw.send(Frame::WindowUpdate { stream: 1, delta: 1000 }).await;
    let (_reader, mut writer) = within(incoming.next()).await.unwrap().split();
    within(writer.write(&[2; 1000])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_stream_that_is_given_up_makes_room() {
    for reset in [true, false] {
        let config = Config { inbox: 10, ..Config::default() };
        let (_connection, mut incoming, mut raw) = against(Role::Server, config, 1 << 20);
        raw.send(syn(1)).await;
        for _ in 0..1000 {
            raw.data(1, &[1; 100], false).await;
        }
        raw.send(syn(3)).await;
        let stream = within(incoming.next()).await.unwrap();
        assert!(timeout(Duration::from_millis(50), incoming.next()).await.is_err());
        let (reader, writer) = stream.split();
        if reset {
            writer.reset(Status::INTERNAL_ERROR);
            assert_eq!(raw.frame().await, Some(rst(1, Status::INTERNAL_ERROR)));
        } else {
            drop(reader);
            within(incoming.next()).await.unwrap();
            within(writer.finish()).await.unwrap();
            continue;
        }
        within(incoming.next()).await.unwrap();
    }
}

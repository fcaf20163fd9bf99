//! Two connections that do random things to each other, with flow control and without.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    task::JoinSet,
};

use super::*;

/// What one side does on one stream.
#[derive(Debug, Clone)]
struct Plan {
    pieces: Vec<usize>,
    end: End,
    /// Stops reading after this many bytes.
    patience: Option<usize>,
    /// How often others run in between.
    slowness: u8,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Finish,
    Reset,
    Drop,
}

#[derive(Debug, Clone)]
struct Case {
    pipe: usize,
    inbox: usize,
    windows: bool,
    /// Streams of the client, of the server; each with the plan of the side that opens and of the other.
    streams: Vec<(bool, Plan, Plan)>,
    pings: u8,
}

fn plan() -> impl Strategy<Value = Plan> {
    let end = prop_oneof![6 => Just(End::Finish), 1 => Just(End::Reset), 1 => Just(End::Drop)];
    let patience = prop_oneof![5 => Just(None), 1 => (0..5000_usize).prop_map(Some)];
    (vec(0..9000_usize, 0..12), end, patience, 0..4_u8).prop_map(|(pieces, end, patience, slowness)| Plan {
        pieces,
        end,
        patience,
        slowness,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let streams = vec((any::<bool>(), plan(), plan()), 1..12);
    (1..5000_usize, 1..20_000_usize, any::<bool>(), streams, 0..5_u8)
        .prop_map(|(pipe, inbox, windows, streams, pings)| Case { pipe, inbox, windows, streams, pings })
}

async fn yields(count: u8) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Sends what is planned; `Ok` if all of it and the end went out.
async fn send(mut writer: Writer, plan: Plan) -> Result<(), Error> {
    let mut at = 0;
    for piece in plan.pieces {
        let bytes: Vec<u8> = (at..at + piece).map(|i| (i % 251) as u8).collect();
        at += piece;
        writer.write(&bytes).await?;
        yields(plan.slowness).await;
    }
    match plan.end {
        End::Finish => writer.finish().await,
        End::Reset => {
            writer.reset(Status::INTERNAL_ERROR);
            Ok(())
        }
        End::Drop => Ok(()),
    }
}

/// Reads until the end or until patience is lost; how much, and whether the end was reached well.
async fn receive(mut reader: Reader, patience: Option<usize>, slowness: u8) -> (usize, bool) {
    let mut got = 0;
    loop {
        if patience.is_some_and(|patience| got >= patience) {
            return (got, false);
        }
        match reader.read().await {
            Ok(Some(piece)) => {
                assert!(piece.iter().enumerate().all(|(i, byte)| *byte == ((got + i) % 251) as u8));
                got += piece.len();
            }
            Ok(None) => return (got, true),
            Err(Error::Reset { .. } | Error::Cancelled { .. }) => return (got, false),
            Err(error) => panic!("{error}"),
        }
        yields(slowness).await;
    }
}

/// One side's part of a stream.
async fn take_part(stream: Stream, plan: Plan) -> (usize, bool) {
    let (reader, writer) = stream.split();
    let (patience, slowness) = (plan.patience, plan.slowness);
    let (sent, received) = tokio::join!(send(writer, plan), receive(reader, patience, slowness));
    match sent {
        Ok(()) | Err(Error::Reset { .. } | Error::Cancelled { .. }) => received,
        Err(error) => panic!("{error}"),
    }
}

/// Passes frames on, but none about windows: both sides seem like spdystream to each other.
async fn without_windows(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
    let mut prologue = [0; 8];
    while from.read_exact(&mut prologue).await.is_ok() {
        let [a, _, _, kind, _, lengths @ ..] = prologue;
        let length = lengths.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let mut body = vec![0; length];
        if from.read_exact(&mut body).await.is_err() {
            break;
        }
        let dropped = a == 0x80 && (kind == 4 || kind == 9);
        if !dropped && (to.write_all(&prologue).await.is_err() || to.write_all(&body).await.is_err()) {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn run(case: Case) {
    let config = || Config { inbox: case.inbox, ..Config::default() };
    let ((client, mut from_server), (server, mut from_client)) = if case.windows {
        pair_with(case.pipe, config(), config())
    } else {
        let (ours, left) = tokio::io::duplex(case.pipe);
        let (right, theirs) = tokio::io::duplex(case.pipe);
        let ((from_left, to_left), (from_right, to_right)) = (tokio::io::split(left), tokio::io::split(right));
        tokio::spawn(without_windows(from_left, to_right));
        tokio::spawn(without_windows(from_right, to_left));
        (Connection::new(ours, Role::Client, config()), Connection::new(theirs, Role::Server, config()))
    };
    let mut parts = JoinSet::new();
    let mut theirs: HashMap<(bool, usize), Plan> = HashMap::new();
    for (index, (by_client, own, other)) in case.streams.iter().cloned().enumerate() {
        let connection = if by_client { client.clone() } else { server.clone() };
        theirs.insert((by_client, index), other.clone());
        // Whoever opens knows how it must end, if nobody gives up.
        let well = [&own, &other].iter().all(|plan| plan.end == End::Finish && plan.patience.is_none());
        let want: usize = other.pieces.iter().sum();
        parts.spawn(async move {
            let headers = Headers::from_iter([("index", index.to_string().as_str()), ("x", &"y".repeat(index * 10))]);
            let stream = connection.open(&headers, false).await.unwrap();
            let (got, end) = take_part(stream, own).await;
            assert!(!well || (end && got == want), "stream {index}: {got} of {want}");
        });
    }
    for connection in [&client, &server] {
        for _ in 0..case.pings {
            let connection = connection.clone();
            parts.spawn(async move {
                connection.ping().await.unwrap();
            });
        }
    }
    // Without windows a side that is not read holds the other back, so nothing may wait for something else here: both
    // accept at the same time, and a reply is sent by the first write, beside the reading.
    let total = case.streams.len();
    for _ in 0..total {
        let (stream, by_client) = within(async {
            tokio::select! {
                Some(stream) = from_client.next() => (stream, true),
                Some(stream) = from_server.next() => (stream, false),
            }
        })
        .await;
        let index: usize = stream.headers().get("index").unwrap().parse().unwrap();
        let plan = theirs.remove(&(by_client, index)).expect("each stream comes once");
        parts.spawn(async move {
            take_part(stream, plan).await;
        });
    }
    while let Some(part) = within(parts.join_next()).await {
        part.unwrap();
    }
    // Both are as good as new.
    within(client.ping()).await.unwrap();
    within(server.ping()).await.unwrap();
    let ends = [client.closed(), server.closed()];
    drop((client, from_server, server, from_client));
    for end in ends {
        within(end).await;
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    within(async {
        while metrics.num_alive_tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_two_connections_do(case in case()) {
        // Virtual time: a standstill is noticed at once.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(case));
    }
}

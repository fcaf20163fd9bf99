//! Big layers over several connections.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tripod_image_service::Ranges;

use super::{
    fake::{Fake, Reply, Seen, range, serve},
    fixture::{Compression, Image, Layer, Tar},
    registry::Registry,
    root::Root,
};

const PIECE: usize = 32 << 10;

/// One layer of 40 pieces, no two of which are equal.
pub fn image() -> Image {
    let mut seed = 7_u32;
    let noise: String = (0..40 * PIECE)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (seed >> 28) as u8)
        })
        .collect();
    Image::new(vec![Layer::new(&Tar::new().file("a", &noise).finish(), Compression::Plain)])
}

/// Sends every layer as slowly as a bad link: one piece takes 40 ms.
pub fn slow(image: &Image, seen: &Seen) -> Option<Reply> {
    let layer = seen.path.ends_with(&image.layers[0].digest.to_string());
    let Reply::Answer(status, headers, bytes) = serve(image, seen) else { return None };
    layer.then(|| Reply::Slow(status, headers, bytes, PIECE / 4, Duration::from_millis(10)))
}

async fn root(ranges: Ranges) -> Root {
    Root::with(|config| config.ranges = ranges).await
}

pub fn ranges() -> Ranges {
    Ranges { connections: 3, piece_bytes: PIECE as u64, memory_bytes: 8 * PIECE as u64 }
}

/// First and last bytes of the pieces that were asked for.
pub fn pieces(fake: &Fake, image: &Image) -> Vec<(usize, usize)> {
    let size = image.layers[0].blob.len();
    let layer = fake.seen().into_iter().filter(|seen| seen.path.ends_with(&image.layers[0].digest.to_string()));
    let ranges = layer.filter_map(|seen| range(&seen, size));
    ranges.filter(|(_, to)| *to != size - 1).collect()
}

#[tokio::test]
async fn a_slow_link_is_used_several_times_at_once() {
    let image = image();
    let copy = image.clone();
    let fake = Fake::with(&image, move |seen| slow(&copy, seen)).await;
    let root = root(ranges()).await;
    assert_eq!(root.pull(&fake.name()).await.unwrap().id, image.id());
    let pieces = pieces(&fake, &image);
    assert!(pieces.len() > 5, "{pieces:?}");
    assert!(pieces.iter().all(|(from, to)| to - from + 1 == PIECE), "{pieces:?}");
    let mut once = pieces.clone();
    once.dedup();
    assert_eq!(pieces, once, "no piece twice");
}

#[tokio::test]
async fn with_one_connection_allowed_there_is_one_request() {
    let image = image();
    let copy = image.clone();
    let fake = Fake::with(&image, move |seen| slow(&copy, seen)).await;
    root(Ranges { connections: 1, ..ranges() }).await.pull(&fake.name()).await.unwrap();
    assert!(fake.counts().values().all(|count| *count == 1), "{:?}", fake.counts());
    // Nor are there more without memory for them.
    let copy = image.clone();
    let fake = Fake::with(&image, move |seen| slow(&copy, seen)).await;
    root(Ranges { memory_bytes: 0, ..ranges() }).await.pull(&fake.name()).await.unwrap();
    assert!(fake.counts().values().all(|count| *count == 1), "{:?}", fake.counts());
}

#[tokio::test]
async fn a_registry_that_only_says_so_is_read_over_one_connection() {
    let image = image();
    // It sends all, another piece, or fewer bytes whenever a piece is asked for; or refuses.
    type Lie = fn(&[u8], (usize, usize)) -> Reply;
    let lies: [Lie; 5] = [
        |blob, _| Reply::ok(blob),
        |blob, (from, to)| {
            let range = format!("bytes {}-{to}/{}", from + 1, blob.len());
            Reply::Answer(206, vec![("content-range", range)], blob[from + 1..=to].to_vec())
        },
        |blob, (from, to)| {
            let range = format!("bytes {from}-{}/{}", to - 9, blob.len());
            Reply::Answer(206, vec![("content-range", range)], blob[from..=to - 9].to_vec())
        },
        |_, _| Reply::status(416),
        |blob, (from, to)| {
            let range = format!("bytes {from}-{to}/{}", blob.len());
            Reply::Break(206, vec![("content-range", range)], to - from + 1, blob[from..from + 10].to_vec())
        },
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let copy = image.clone();
        let size = image.layers[0].blob.len();
        let fake = Fake::with(&image, move |seen| {
            let slow = slow(&copy, seen)?;
            match range(seen, size) {
                Some((from, to)) if to != size - 1 => Some(lie(&copy.layers[0].blob, (from, to))),
                _ => Some(slow),
            }
        })
        .await;
        let root = root(ranges()).await;
        let pulled = root.pull(&fake.name()).await;
        assert_eq!(pulled.unwrap_or_else(|error| panic!("lie {index}: {error}")).id, image.id());
        assert!(!pieces(&fake, &image).is_empty(), "lie {index}");
        root.assert_no_leftovers();
    }
}

#[tokio::test]
async fn a_wrong_byte_in_a_piece_is_found() {
    let image = image();
    let copy = image.clone();
    let size = image.layers[0].blob.len();
    let fake = Fake::with(&image, move |seen| match slow(&copy, seen)? {
        Reply::Slow(status, headers, mut bytes, chunk, pause) => {
            if range(seen, size).is_some() {
                bytes[0] ^= 1;
            }
            Some(Reply::Slow(status, headers, bytes, chunk, pause))
        }
        other => Some(other),
    })
    .await;
    let root = root(ranges()).await;
    let error = root.pull(&fake.name()).await.unwrap_err();
    assert!(error.to_string().contains("has the digest"), "{error}");
    assert!(!pieces(&fake, &image).is_empty());
}

/// A link to a server on which each connection has its own share, and what was sent over it to the server.
struct Link {
    address: String,
    sent: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sent: Arc<Mutex<Vec<u8>>> = Arc::default();
        let all = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let all = Arc::clone(&all);
                connections.spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                        all.lock().unwrap().extend_from_slice(&buffer[..count]);
                        if to_server.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                });
                connections.spawn(async move {
                    let mut buffer = [0; PIECE / 4];
                    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        if to_client.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, sent, task }
    }
}

#[tokio::test]
async fn debians_registry_sends_pieces() {
    let image = image();
    let registry = Registry::start().await;
    image.push(&registry.address, "x", "v1").await;
    let link = Link::to(registry.address.clone()).await;
    let root = root(ranges()).await;
    assert_eq!(root.pull(&format!("{}/x:v1", link.address)).await.unwrap().id, image.id());
    let sent = String::from_utf8_lossy(&link.sent.lock().unwrap()).to_lowercase();
    assert!(sent.matches("range: bytes=").count() > 5, "{sent}");
}

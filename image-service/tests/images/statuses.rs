//! Every refusal at every point of a pull, and answers without end at every point.

use std::time::{Duration, Instant};

use tripod_engine::Kind;
use tripod_image_service::Digest;

use super::{
    fake::{Fake, Reply, Seen, serve},
    fixture::{Image, Tar},
    root::Root,
};

fn image() -> Image {
    Image::new(vec![Tar::new().file("a", "first").gzip(), Tar::new().file("b", "second").gzip()])
}

/// Where a pull can be met: what a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Tag,
    Configuration,
    Layer(usize),
}

const POINTS: [Point; 4] = [Point::Tag, Point::Configuration, Point::Layer(0), Point::Layer(1)];

impl Point {
    fn is_met(self, image: &Image, seen: &Seen) -> bool {
        match self {
            Self::Tag => seen.path.contains("/manifests/"),
            Self::Configuration => seen.path.ends_with(&Digest::of(&image.config).to_string()),
            Self::Layer(index) => seen.path.ends_with(&image.layers[index].digest.to_string()),
        }
    }
}

#[tokio::test]
async fn at_any_point_a_status_is_told_or_survived() {
    let image = image();
    for (status, kind) in [
        (401, Kind::PermissionDenied),
        (403, Kind::PermissionDenied),
        (404, Kind::NotFound),
        (429, Kind::Unavailable),
        (500, Kind::Unavailable),
        (503, Kind::Unavailable),
    ] {
        for point in POINTS {
            let copy = image.clone();
            let answer = move |seen: &Seen, times| {
                (point.is_met(&copy, seen) && seen.before < times).then(|| Reply::status(status))
            };
            let always = answer.clone();
            let fake = Fake::with(&image, move |seen| always(seen, usize::MAX)).await;
            let root = Root::with(|config| config.timeouts.backoff_milliseconds = 2).await;
            let error = root.pull(&fake.name()).await.unwrap_err();
            let message = error.to_string();
            assert_eq!(error.kind(), kind, "{status} at {point:?}: {message}");
            assert!(message.contains(&status.to_string()) || status == 404, "{status} at {point:?}: {message}");
            assert!(message.contains(&format!("from {}", fake.address)), "{status} at {point:?}: {message}");
            let tries = fake.seen().iter().filter(|seen| point.is_met(&image, seen)).count();
            assert_eq!(tries, if kind == Kind::Unavailable { 3 } else { 1 }, "{status} at {point:?}");
            assert!(root.images.list().is_empty(), "{status} at {point:?}");
            // What passes is not even noticed, in the same store.
            let fake = Fake::with(&image, move |seen| answer(seen, 2)).await;
            let pulled = root.pull(&fake.name()).await;
            match kind {
                Kind::Unavailable => assert_eq!(pulled.unwrap().id, image.id(), "{status} at {point:?}"),
                kind => assert_eq!(pulled.unwrap_err().kind(), kind, "{status} at {point:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_at_any_point_is_survived() {
    let image = image();
    for point in POINTS {
        let copy = image.clone();
        let fake = Fake::with(&image, move |seen| {
            let Reply::Answer(status, headers, bytes) = serve(&copy, seen) else { return None };
            (point.is_met(&copy, seen) && seen.before < 2)
                .then(|| Reply::Break(status, headers, bytes.len(), bytes[..bytes.len() / 2].to_vec()))
        })
        .await;
        let pulled = Root::new().await.pull(&fake.name()).await;
        assert_eq!(pulled.unwrap_or_else(|error| panic!("{point:?}: {error}")).id, image.id());
    }
}

#[tokio::test]
async fn answers_that_do_not_end_are_given_up_at_any_point() {
    let image = image();
    for point in POINTS {
        for endless in [true, false] {
            let copy = image.clone();
            let fake = Fake::with(&image, move |seen| {
                let drip = || Reply::Drip(vec![b' '; 60], Duration::from_millis(200));
                point.is_met(&copy, seen).then(|| if endless { Reply::Endless } else { drip() })
            })
            .await;
            let root = Root::with(|config| {
                config.timeouts.attempts = 1;
                config.timeouts.stall_seconds = if endless { 10 } else { 2 };
            })
            .await;
            let begin = Instant::now();
            let error = root.pull(&fake.name()).await.unwrap_err();
            let words = if endless { ["larger than the limit", "the manifest says"] } else { ["no progress"; 2] };
            let message = error.to_string();
            assert!(words.iter().any(|word| message.contains(word)), "{point:?}, {endless}: {message}");
            assert!(begin.elapsed() < Duration::from_secs(30), "{point:?}, {endless}");
        }
    }
}

#[tokio::test]
async fn refusals_and_tokens_without_end_are_given_up() {
    for status in [403, 503] {
        // The body of a refusal is only for the message.
        let fake = Fake::new(move |_| Reply::Answer(status, Vec::new(), vec![b'{'; 1 << 20])).await;
        let error = Root::new().await.pull(&fake.name()).await.unwrap_err();
        assert!(error.to_string().contains(&status.to_string()) && error.to_string().len() < 1000, "{error}");
    }
    let tokens = Fake::new(|_| Reply::Endless).await;
    let realm = format!("Bearer realm=\"http://{}/token\"", tokens.address);
    let fake = Fake::new(move |_| Reply::Answer(401, vec![("www-authenticate", realm.clone())], Vec::new())).await;
    let error = Root::new().await.pull(&fake.name()).await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&tokens.address) && message.contains("more than 1048576 bytes"), "{message}");
    let heads = Fake::new(|_| {
        let many = (0..400).map(|_| ("x-many", "x".repeat(4000))).collect();
        Reply::Answer(200, many, Vec::new())
    })
    .await;
    let error = Root::new().await.pull(&heads.name()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
}

//! Every fault where a pull can meet it beside its own image: at the token server, at a manifest below an index, at a piece
//! of a big layer, and at a mirror.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tripod_engine::Kind;
use tripod_image_service::Digest;

use super::{
    fake::{Fake, Reply, Seen, range, serve},
    fixture::{Image, OCI_INDEX, Tar},
    ranges,
    root::Root,
};

/// What a server does instead of answering well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Status(u16),
    /// Closes in the middle.
    Broken,
    /// Sends half, and says that it is all.
    Short,
    /// Sends the right number of other bytes.
    Wrong,
    /// Sends something behind it.
    Longer,
    Endless,
    /// Sends a byte now and then.
    Slow,
    Silent,
}

const FAULTS: [Fault; 13] = [
    Fault::Status(401),
    Fault::Status(403),
    Fault::Status(404),
    Fault::Status(429),
    Fault::Status(500),
    Fault::Status(503),
    Fault::Broken,
    Fault::Short,
    Fault::Wrong,
    Fault::Longer,
    Fault::Endless,
    Fault::Slow,
    Fault::Silent,
];
/// No pull of these takes longer, whatever it meets.
const LIMIT: Duration = Duration::from_secs(120);

impl Fault {
    /// In place of a good answer.
    fn reply(self, good: Reply) -> Reply {
        let Reply::Answer(status, headers, bytes) = good else { return good };
        match self {
            Self::Status(status) => Reply::status(status),
            Self::Broken => Reply::Break(status, headers, bytes.len(), bytes[..bytes.len() / 2].to_vec()),
            Self::Short => Reply::Answer(status, headers, bytes[..bytes.len() / 2].to_vec()),
            Self::Wrong => Reply::Answer(status, headers, bytes.iter().map(|byte| byte ^ 1).collect()),
            Self::Longer => Reply::Answer(status, headers, [&bytes[..], b"more"].concat()),
            Self::Endless => Reply::Endless,
            Self::Slow => Reply::Drip(bytes, Duration::from_secs(1)),
            Self::Silent => Reply::Never,
        }
    }

    /// What a pull ends in that has nobody else to ask.
    fn kind(self) -> Kind {
        match self {
            Self::Status(401 | 403) => Kind::PermissionDenied,
            Self::Status(404) => Kind::NotFound,
            Self::Status(_) | Self::Broken | Self::Slow | Self::Silent => Kind::Unavailable,
            Self::Short | Self::Wrong | Self::Longer | Self::Endless => Kind::Internal,
        }
    }
}

/// A store that does not wait for long.
async fn root() -> Root {
    Root::with(|config| {
        config.timeouts.stall_seconds = 3;
        config.timeouts.response_seconds = 3;
        config.timeouts.attempts = 2;
        config.timeouts.backoff_milliseconds = 2;
        config.ranges = ranges::ranges();
    })
    .await
}

fn image() -> Image {
    Image::new(vec![Tar::new().file("a", "first").gzip()])
}

/// Pulls, within the limit.
async fn pull(root: &Root, name: &str, when: &str) -> Result<String, tripod_engine::Error> {
    let begin = Instant::now();
    let pulled = root.pull(name).await.map(|image| image.id);
    assert!(begin.elapsed() < LIMIT, "{when}: {:?}", begin.elapsed());
    if pulled.is_err() {
        assert!(root.images.list().is_empty(), "{when}");
        root.assert_no_leftovers();
    }
    pulled
}

#[tokio::test]
async fn a_token_server_with_any_fault_is_told() {
    join_all(FAULTS.map(async |fault| {
        let tokens = Fake::new(move |_| fault.reply(Reply::ok(br#"{"token":"good"}"#))).await;
        let realm = format!("Bearer realm=\"http://{}/token\"", tokens.address);
        let image = image();
        let fake = Fake::with(&image, move |seen| match seen.header("authorization") {
            Some("Bearer good") => None,
            _ => Some(Reply::Answer(401, vec![("www-authenticate", realm.clone())], Vec::new())),
        })
        .await;
        let error = pull(&root().await, &fake.name(), &format!("{fault:?}")).await.unwrap_err();
        let message = error.to_string();
        // Who may not have a token may not have the image: that is the registry's to say.
        let told = if error.kind() == Kind::PermissionDenied { &fake.address } else { &tokens.address };
        assert!(message.contains(told), "{fault:?}: {message}");
        // A server that gives no token is told as one that may give it later, whatever it sends instead.
        let kinds = [fault.kind(), Kind::Unavailable];
        assert!(fault == Fault::Status(404) || kinds.contains(&error.kind()), "{fault:?}: {message}");
        assert!(tokens.seen().len() <= 2, "{fault:?}: asked {} times", tokens.seen().len());
    }))
    .await;
}

#[tokio::test]
async fn a_manifest_below_an_index_with_any_fault_is_told() {
    join_all(FAULTS.map(async |fault| {
        let image = image();
        let copy = image.clone();
        let fake = Fake::with(&image, move |seen| {
            if seen.path.ends_with("/manifests/v1") {
                let index = copy.index();
                let digest = Digest::of(&index).to_string();
                let headers = vec![("content-type", OCI_INDEX.to_owned()), ("docker-content-digest", digest)];
                return Some(Reply::Answer(200, headers, index));
            }
            seen.path.contains("/manifests/").then(|| fault.reply(serve(&copy, seen)))
        })
        .await;
        let error = pull(&root().await, &fake.name(), &format!("{fault:?}")).await.unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), fault.kind(), "{fault:?}: {message}");
        assert!(message.contains(&fake.address), "{fault:?}: {message}");
    }))
    .await;
}

/// Whatever becomes of a piece, the first connection gets all in the end.
#[tokio::test]
async fn a_piece_with_any_fault_is_got_otherwise() {
    // A wrong byte is found, and told: there is nobody else to ask.
    let faults = FAULTS.into_iter().filter(|fault| *fault != Fault::Wrong);
    let image = &ranges::image();
    join_all(faults.map(async |fault| {
        let (copy, size) = (image.clone(), image.layers[0].blob.len());
        let fake = Fake::with(image, move |seen| match range(seen, size) {
            Some((_, to)) if to != size - 1 => Some(fault.reply(serve(&copy, seen))),
            _ => ranges::slow(&copy, seen),
        })
        .await;
        let pulled = pull(&root().await, &fake.name(), &format!("{fault:?}")).await;
        assert_eq!(pulled.unwrap_or_else(|error| panic!("{fault:?}: {error}")), image.id());
        assert!(!ranges::pieces(&fake, image).is_empty(), "{fault:?}");
    }))
    .await;
}

/// Where a pull can meet a mirror.
#[derive(Clone, Copy, Debug)]
enum Point {
    Manifest,
    Configuration,
    Layer,
}

impl Point {
    fn is_met(self, image: &Image, seen: &Seen) -> bool {
        match self {
            Self::Manifest => seen.path.contains("/manifests/"),
            Self::Configuration => seen.path.ends_with(&Digest::of(&image.config).to_string()),
            Self::Layer => seen.path.ends_with(&image.layers[0].digest.to_string()),
        }
    }
}

#[tokio::test]
async fn a_mirror_with_any_fault_is_passed_over() {
    let image = &image();
    for point in [Point::Manifest, Point::Configuration, Point::Layer] {
        join_all(FAULTS.map(async |fault| {
            let copy = image.clone();
            let answer = move |seen: &Seen| point.is_met(&copy, seen).then(|| fault.reply(serve(&copy, seen)));
            let (mirror, server) = (Fake::with(image, answer).await, Fake::with(image, |_| None).await);
            let root = root().await;
            let folder = root.folder.path().join("certs.d/registry.example");
            std::fs::create_dir_all(&folder).unwrap();
            let hosts = format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server.address, mirror.address);
            std::fs::write(folder.join("hosts.toml"), hosts).unwrap();
            let (name, when) =
                (format!("registry.example/test/image@{}", image.digest()), format!("{fault:?} {point:?}"));
            let pulled = pull(&root, &name, &when).await;
            assert_eq!(pulled.unwrap_or_else(|error| panic!("{when}: {error}")), image.id());
            assert!(!mirror.seen().is_empty() && !server.seen().is_empty(), "{when}");
        }))
        .await;
    }
}

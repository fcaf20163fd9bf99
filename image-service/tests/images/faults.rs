//! Registries that are broken, slow, hostile, or want to know who asks.

use std::time::{Duration, Instant};

use tripod_engine::Kind;
use tripod_image_service::{PullRequest, RegistryAuth};

use super::{
    fake::{Fake, Reply, Seen, serve},
    fixture::{Compression, Image, Layer, Tar},
    root::Root,
};

fn image() -> Image {
    let noise: String =
        (0..40_000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8)).collect();
    Image::new(vec![
        Layer::new(&Tar::new().file("a", &noise).finish(), Compression::Plain),
        Tar::new().file("b", "second").gzip(),
    ])
}

fn is_layer(image: &Image, seen: &Seen, index: usize) -> bool {
    seen.path.ends_with(&format!("/blobs/{}", image.layers[index].digest))
}

async fn fails(root: &Root, fake: &Fake, kind: Kind, words: &[&str]) {
    let error = root.pull(&fake.name()).await.unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for word in words.iter().chain(&[fake.name().as_str()]) {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    assert!(root.images.list().is_empty());
    root.assert_no_leftovers();
}

#[tokio::test]
async fn wrong_bytes_are_refused() {
    let image = image();
    for wrong in [0, 1] {
        let root = Root::new().await;
        let copy = image.clone();
        let fake = Fake::with(&image, move |seen| {
            is_layer(&copy, seen, wrong).then(|| {
                let mut blob = copy.layers[wrong].blob.clone();
                let middle = blob.len() / 2;
                blob[middle] ^= 1;
                Reply::ok(&blob)
            })
        })
        .await;
        let error = root.pull(&fake.name()).await.unwrap_err();
        assert!(error.to_string().contains("has the digest"), "{error}");
        assert!(!root.path().join("layers").join(image.layers[wrong].diff_id.hex()).exists());
    }
    let fake = Fake::with(&image, |seen| seen.path.contains("/manifests/").then(|| Reply::ok(b"{}"))).await;
    fails(&Root::new().await, &fake, Kind::Internal, &["neither layers nor manifests"]).await;
    let (config, good) = (tripod_image_service::Digest::of(&image.config), image.config.clone());
    let fake = Fake::with(&image, move |seen| {
        seen.path.ends_with(&config.to_string()).then(|| Reply::ok(&vec![b'x'; good.len()]))
    })
    .await;
    fails(&Root::new().await, &fake, Kind::Internal, &["has the digest"]).await;
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let mut image = image();
    image.layers[0].diff_id = image.layers[1].diff_id.clone();
    let mut layers = image.layers.clone();
    layers.truncate(1);
    let image = Image::new(layers);
    let fake = Fake::with(&image, |_| None).await;
    fails(&Root::new().await, &fake, Kind::Internal, &["unpacks to", "corrupt"]).await;
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let image = image();
    for ranges in [true, false] {
        let copy = image.clone();
        let fake = Fake::with(&image, move |seen| {
            if !is_layer(&copy, seen, 0) {
                return None;
            }
            let blob = &copy.layers[0].blob;
            match seen.before {
                0 => Some(Reply::Break(200, Vec::new(), blob.len(), blob[..10_000].to_vec())),
                // A server without ranges sends all of it again.
                _ if !ranges => Some(Reply::ok(blob)),
                1 => {
                    let headers = vec![("content-range", format!("bytes 10000-{}/{}", blob.len() - 1, blob.len()))];
                    Some(Reply::Break(206, headers, blob.len() - 10_000, blob[10_000..20_000].to_vec()))
                }
                _ => None,
            }
        })
        .await;
        let root = Root::new().await;
        root.pull(&fake.name()).await.unwrap();
        let asked: Vec<Option<String>> = fake
            .seen()
            .iter()
            .filter(|seen| is_layer(&image, seen, 0))
            .map(|seen| seen.header("range").map(str::to_owned))
            .collect();
        let from = |offset: u32| Some(format!("bytes={offset}-"));
        assert_eq!(asked, if ranges { vec![None, from(10_000), from(20_000)] } else { vec![None, from(10_000)] });
    }
}

#[tokio::test]
async fn a_download_that_never_gets_on_is_given_up() {
    let image = image();
    let copy = image.clone();
    let fake = Fake::with(&image, move |seen| {
        is_layer(&copy, seen, 0).then(|| Reply::Drip(copy.layers[0].blob.clone(), Duration::from_millis(100)))
    })
    .await;
    let begin = Instant::now();
    let root = Root::with(|config| config.timeouts.stall_seconds = 1).await;
    let (layer, registry) = (image.layers[0].digest.to_string(), fake.name());
    let registry = registry.split('/').next().unwrap();
    let words = ["RegistryUnavailable", "no progress: less than 100 bytes a second for 1 seconds", &layer, registry];
    fails(&root, &fake, Kind::Unavailable, &words).await;
    assert!(begin.elapsed() < Duration::from_secs(60));
    let figures = root.images.figures();
    assert_eq!(figures.pulls, [("no_progress", 1)].into());
    assert_eq!((figures.pulls_running, figures.layers_under_way["downloading"]), (0, 0));
    assert!(figures.downloaded_bytes > 0 && figures.durations.sum == 0.0, "{figures:?}");
    let copy = image.clone();
    let fake = Fake::with(&image, move |seen| {
        is_layer(&copy, seen, 0).then(|| Reply::Break(200, Vec::new(), copy.layers[0].blob.len(), Vec::new()))
    })
    .await;
    fails(&Root::new().await, &fake, Kind::Unavailable, &["RegistryUnavailable", "after 3 tries"]).await;
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up() {
    let fake = Fake::new(|_| Reply::Never).await;
    let root = Root::with(|config| (config.timeouts.response_seconds, config.timeouts.attempts) = (1, 2)).await;
    fails(&root, &fake, Kind::Unavailable, &["RegistryUnavailable", "timed out"]).await;
    let error = root.pull("127.0.0.1:1/test/none").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().starts_with("RegistryUnavailable: cannot pull 127.0.0.1:1/test/none"), "{error}");
}

#[tokio::test]
async fn more_than_was_announced_is_refused() {
    let image = image();
    for endless in [true, false] {
        let copy = image.clone();
        let fake = Fake::with(&image, move |seen| {
            is_layer(&copy, seen, 1).then(|| {
                if endless { Reply::Endless } else { Reply::ok(&[&copy.layers[1].blob[..], b"more"].concat()) }
            })
        })
        .await;
        let error = Root::new().await.pull(&fake.name()).await.unwrap_err();
        assert!(error.to_string().contains("the manifest says"), "{error}");
    }
    let fake = Fake::with(&image, |seen| seen.path.contains("/manifests/").then_some(Reply::Endless)).await;
    fails(&Root::new().await, &fake, Kind::Internal, &["larger than the limit"]).await;
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let image = image();
    let fake = Fake::with(&image, |seen| match seen.before {
        0 => Some(Reply::Answer(429, vec![("retry-after", "0".into())], Vec::new())),
        1 => Some(Reply::status(503)),
        _ => None,
    })
    .await;
    Root::new().await.pull(&fake.name()).await.unwrap();
    assert!(fake.counts().values().all(|count| *count == 3), "{:?}", fake.counts());
    let fake = Fake::new(|_| Reply::status(500)).await;
    fails(&Root::new().await, &fake, Kind::Unavailable, &["RegistryUnavailable", "500", "3 tries"]).await;
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn refusals_have_their_kinds() {
    let body = br#"{"errors":[{"code":"DENIED","message":"go away"}]}"#;
    for (status, kind, word) in [
        (401, Kind::PermissionDenied, "needs credentials"),
        (403, Kind::PermissionDenied, "go away"),
        (404, Kind::NotFound, "not found"),
        (400, Kind::Internal, "400"),
    ] {
        let fake = Fake::new(move |_| Reply::Answer(status, Vec::new(), body.to_vec())).await;
        fails(&Root::new().await, &fake, kind, &[word]).await;
        assert_eq!(fake.seen().len(), 1, "{status} is final");
    }
}

fn challenge(realm: &str) -> Reply {
    let value = format!(r#"Bearer realm="http://{realm}/token",service="s",scope="repository:test/image:pull""#);
    Reply::Answer(401, vec![("www-authenticate", value)], Vec::new())
}

#[tokio::test]
async fn tokens_are_got_once_a_pull_and_never_shared() {
    let image = image();
    let tokens = Fake::new(|seen| match seen.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => Reply::ok(br#"{"token":"good"}"#),
        None if seen.method == "POST" && String::from_utf8_lossy(&seen.body).contains("refresh_token=identity") => {
            Reply::ok(br#"{"access_token":"good"}"#)
        }
        None => Reply::ok(br#"{"token":"anonymous"}"#),
        _ => Reply::status(401),
    })
    .await;
    let realm = tokens.address.clone();
    let fake = Fake::with(&image, move |seen| match seen.header("authorization") {
        Some("Bearer good") => None,
        Some(_) => Some(Reply::status(401)),
        None => Some(challenge(&realm)),
    })
    .await;
    let root = Root::new().await;
    let pull =
        |auth: Option<RegistryAuth>| root.images.pull(PullRequest { reference: fake.name(), auth, progress: None });
    let me = || RegistryAuth { username: "me".into(), password: "secret".into(), ..RegistryAuth::default() };
    // At the same time as one that may, one that may not does not get in.
    let (good, none) = tokio::join!(pull(Some(me())), pull(None));
    good.unwrap();
    assert_eq!(none.unwrap_err().kind(), Kind::PermissionDenied);
    assert_eq!(tokens.seen().len(), 2);
    assert!(tokens.seen()[0].query.contains("scope=repository%3Atest%2Fimage%3Apull"), "{}", tokens.seen()[0].query);
    // And not afterwards, although everything is here now.
    assert_eq!(pull(None).await.unwrap_err().kind(), Kind::PermissionDenied);
    let wrong = RegistryAuth { password: "wrong".into(), ..me() };
    let error = pull(Some(wrong)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("check the pull secret") && !error.to_string().contains("wrong)"), "{error}");
    for auth in [
        RegistryAuth { auth: "bWU6c2VjcmV0".into(), ..RegistryAuth::default() },
        RegistryAuth { identity_token: "identity".into(), ..RegistryAuth::default() },
        RegistryAuth { registry_token: "good".into(), ..RegistryAuth::default() },
        RegistryAuth { server_address: format!("http://{}", fake.address), ..me() },
    ] {
        pull(Some(auth)).await.unwrap();
    }
    let other = RegistryAuth { server_address: "elsewhere.example".into(), ..me() };
    assert_eq!(pull(Some(other)).await.unwrap_err().kind(), Kind::PermissionDenied);
}

#[tokio::test]
async fn a_token_that_expires_in_mid_pull_is_renewed() {
    let image = image();
    let tokens = Fake::new(|seen| Reply::ok(format!(r#"{{"token":"t{}"}}"#, seen.before).as_bytes())).await;
    let realm = tokens.address.clone();
    let fake = Fake::with(&image, move |seen| match seen.header("authorization") {
        Some("Bearer t0") if seen.path.contains("/manifests/") => None,
        Some("Bearer t1") => None,
        _ => Some(challenge(&realm)),
    })
    .await;
    Root::new().await.pull(&fake.name()).await.unwrap();
    assert_eq!(tokens.seen().len(), 2);
}

#[tokio::test]
async fn redirects_do_not_carry_credentials() {
    let image = image();
    let copy = image.clone();
    let storage = Fake::new(move |seen| serve(&copy, seen)).await;
    let elsewhere = storage.address.clone();
    let fake = Fake::with(&image, move |seen| match seen.header("authorization") {
        None => Some(Reply::Answer(401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new())),
        Some(basic) => {
            assert_eq!(basic, "Basic bWU6c2VjcmV0");
            let location = format!("http://{elsewhere}{}?signature=abc", seen.path);
            seen.path.contains("/blobs/").then(|| Reply::Answer(307, vec![("location", location)], Vec::new()))
        }
    })
    .await;
    let auth = RegistryAuth { username: "me".into(), password: "secret".into(), ..RegistryAuth::default() };
    let root = Root::new().await;
    root.images.pull(PullRequest { reference: fake.name(), auth: Some(auth), progress: None }).await.unwrap();
    assert_eq!(storage.seen().len(), 3);
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_none()));
    let fake = Fake::new(|seen| Reply::Answer(302, vec![("location", seen.path.clone())], Vec::new())).await;
    fails(&Root::new().await, &fake, Kind::Internal, &["redirects more than 10 times"]).await;
}

#[tokio::test]
async fn mirrors_are_asked_first_and_may_fail() {
    let image = image();
    let (good, bad, upstream) = (
        Fake::with(&image, |_| None).await,
        Fake::new(|_| Reply::status(404)).await,
        Fake::new(|_| Reply::status(500)).await,
    );
    let root = Root::new().await;
    let folder = root.folder.path().join("certs.d/registry.example");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n[host.\"http://{}\".header]\nx-key = \"k\"\n",
        upstream.address, bad.address, good.address, good.address
    );
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    let auth = RegistryAuth { username: "me".into(), password: "secret".into(), ..RegistryAuth::default() };
    let request = PullRequest { reference: "registry.example/test/image:v1".into(), auth: Some(auth), progress: None };
    let pulled = root.images.pull(request).await.unwrap();
    assert_eq!(pulled.repo_tags, ["registry.example/test/image:v1"]);
    assert!(upstream.seen().is_empty());
    assert_eq!(bad.seen().len(), 4);
    let seen = good.seen();
    assert!(seen.iter().all(|seen| seen.query == "ns=registry.example" && seen.header("x-key") == Some("k")));
    assert!(seen.iter().all(|seen| seen.header("authorization").is_none()), "credentials are the registry's");
}

#[tokio::test]
async fn many_pulls_fetch_each_blob_once() {
    let (image, root) = (image(), Root::new().await);
    let fake = Fake::with(&image, |_| None).await;
    let pulls = (0..32).map(|index| {
        // Half of them by another name, so that only layers and the configuration are in common.
        let name = if index % 2 == 0 { fake.name() } else { fake.name().replace("v1", "v2") };
        let images = root.images.clone();
        async move { images.pull(PullRequest { reference: name, ..PullRequest::default() }).await }
    });
    for pulled in futures::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap().id, image.id());
    }
    for layer in &image.layers {
        assert_eq!(fake.counts()[&format!("/v2/test/image/blobs/{}", layer.digest)], 1);
    }
    assert_eq!(root.images.list()[0].repo_tags.len(), 2);
}

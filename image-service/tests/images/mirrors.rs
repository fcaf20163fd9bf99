//! Several hosts for one registry: who is asked, what each of them gets to see, and what happens when one is wrong.

use std::time::{Duration, Instant};

use tripod_engine::Kind;
use tripod_image_service::{PullRequest, RegistryAuth};

use super::{
    fake::{Fake, Reply, Seen},
    fixture::{Compression, Image, Layer, Tar},
    root::Root,
};

const NAME: &str = "registry.example/test/image:v1";

fn image() -> Image {
    let noise: String =
        (0..60_000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8)).collect();
    Image::new(vec![
        Layer::new(&Tar::new().file("a", &noise).finish(), Compression::Plain),
        Tar::new().file("b", &noise[..30_000]).gzip(),
    ])
}

fn is_layer(image: &Image, seen: &Seen, index: usize) -> bool {
    seen.path.ends_with(&format!("/blobs/{}", image.layers[index].digest))
}

/// A store whose `registry.example` has these mirrors, with more lines for each, and this server.
async fn root(mirrors: &[(&Fake, &str)], server: &Fake) -> Root {
    let root = Root::new().await;
    write(&root, mirrors, &format!("http://{}", server.address));
    root
}

fn write(root: &Root, mirrors: &[(&Fake, &str)], server: &str) {
    let folder = root.folder.path().join("certs.d/registry.example");
    std::fs::create_dir_all(&folder).unwrap();
    let mut text = format!("server = \"{server}\"\n");
    for (mirror, lines) in mirrors {
        text += &format!("[host.\"http://{}\"]\n{lines}\n", mirror.address);
    }
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
}

#[tokio::test]
async fn a_mirror_that_lies_is_not_believed() {
    let image = image();
    let digest = image.digest();
    // Another byte in a layer that is plain and in one that is not, a page in place of a layer, fewer bytes, a wrong
    // manifest, a wrong configuration.
    type Lie = fn(&Image, &Seen) -> Option<Reply>;
    let lies: [Lie; 6] = [
        |image, seen| {
            let mut blob = image.layers[0].blob.clone();
            blob[30_000] ^= 1;
            is_layer(image, seen, 0).then(|| Reply::ok(&blob))
        },
        |image, seen| {
            let mut blob = image.layers[1].blob.clone();
            let middle = blob.len() / 2;
            blob[middle] ^= 1;
            is_layer(image, seen, 1).then(|| Reply::ok(&blob))
        },
        |image, seen| is_layer(image, seen, 0).then(|| Reply::ok(&vec![b'<'; image.layers[0].blob.len()])),
        |image, seen| is_layer(image, seen, 1).then(|| Reply::ok(&image.layers[1].blob[..100])),
        |_, seen| seen.path.contains("/manifests/sha256:").then(|| Reply::ok(b"{}")),
        |image, seen| {
            let config = tripod_image_service::Digest::of(&image.config).to_string();
            seen.path.ends_with(&config).then(|| Reply::ok(&vec![b' '; image.config.len()]))
        },
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let copy = image.clone();
        let mirror = Fake::with(&image, move |seen| lie(&copy, seen)).await;
        let server = Fake::with(&image, |_| None).await;
        let root = root(&[(&mirror, "")], &server).await;
        let pulled = root.pull(&format!("registry.example/test/image@{digest}")).await;
        assert_eq!(pulled.unwrap_or_else(|error| panic!("lie {index}: {error}")).id, image.id());
        assert!(!server.seen().is_empty() && !mirror.seen().is_empty());
        root.assert_no_leftovers();
        // With nobody else to ask, it is an error.
        let alone = Root::new().await;
        write(&alone, &[], &format!("http://{}", mirror.address));
        alone.pull(&format!("registry.example/test/image@{digest}")).await.unwrap_err();
        assert!(alone.images.list().is_empty());
    }
}

#[tokio::test]
async fn a_mirror_that_wants_us_to_wait_is_passed_over() {
    let image = image();
    let busy = || Reply::Answer(429, vec![("retry-after", "3600".into())], Vec::new());
    let mirror = Fake::new(move |_| busy()).await;
    let server = Fake::with(&image, |_| None).await;
    let begin = Instant::now();
    root(&[(&mirror, "")], &server).await.pull(NAME).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(50), "the mirror was waited for");
    assert!(mirror.seen().iter().all(|seen| seen.before == 0), "one try of each");
}

#[tokio::test]
async fn all_that_failed_are_named() {
    let (mirror, server) = (Fake::new(|_| Reply::status(403)).await, Fake::new(|_| Reply::status(404)).await);
    let root = root(&[(&mirror, "")], &server).await;
    let error = root.pull(NAME).await.unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), Kind::NotFound, "{message}");
    for part in [NAME, &mirror.address, &server.address, "403", "check the name and the tag"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

#[tokio::test]
async fn capabilities_paths_and_headers_are_kept_to() {
    let image = image();
    let copy = image.clone();
    // Serves blobs and manifests below a path of its own, and must not be asked what a tag means.
    let mirror = Fake::new(move |seen| {
        let Some(path) = seen.path.strip_prefix("/cache/of/all/") else { return Reply::status(500) };
        super::fake::serve(&copy, &Seen { path: path.to_owned(), ..seen.clone() })
    })
    .await;
    let copy = image.clone();
    let storage = Fake::with(&image, |_| None).await;
    let elsewhere = storage.address.clone();
    let server = Fake::with(&image, move |seen| {
        let location = format!("http://{elsewhere}{}", seen.path);
        is_layer(&copy, seen, 0).then(|| Reply::Answer(307, vec![("location", location)], Vec::new()))
    })
    .await;
    let root = Root::new().await;
    let folder = root.folder.path().join("certs.d/_default");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}/cache/of/all\"]\ncapabilities = [\"pull\"]\noverride_path = true\n\
         [host.\"http://{}/cache/of/all\".header]\nx-secret = \"s\"\n",
        server.address, mirror.address, mirror.address
    );
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    let auth = RegistryAuth { username: "me".into(), password: "secret".into(), ..RegistryAuth::default() };
    let request = PullRequest { reference: NAME.into(), auth: Some(auth.clone()), progress: None };
    root.images.pull(request).await.unwrap();
    let seen = mirror.seen();
    assert_eq!(seen.len(), 3, "configuration and layers, but no tag: {seen:?}");
    assert!(seen.iter().all(|seen| seen.header("x-secret") == Some("s") && seen.header("authorization").is_none()));
    assert!(server.seen().iter().all(|seen| seen.path.contains("/manifests/") && seen.header("x-secret").is_none()));
    // A host's own headers do not go where it redirects to.
    let text = format!("server = \"http://{}\"\n[header]\nx-secret = \"s\"\n", server.address);
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    let request = PullRequest { reference: "other.example/test/image:v1".into(), auth: Some(auth), progress: None };
    let other = Root::with(|config| config.certs_dir = root.folder.path().join("certs.d")).await;
    other.images.pull(request).await.unwrap();
    assert!(server.seen().iter().any(|seen| seen.header("x-secret") == Some("s")));
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].header("x-secret"), None);
}

#[tokio::test]
async fn settings_that_nobody_knows_are_told() {
    let server = Fake::new(|_| Reply::status(500)).await;
    let root = root(&[(&server, "rewrite = \"x\"")], &server).await;
    let error = root.pull(NAME).await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    let message = error.to_string();
    for part in [NAME, "certs.d/registry.example/hosts.toml", "\"rewrite\"", "override_path"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_mirror_that_does_not_take_connections_has_its_own_limit() {
    let image = image();
    let server = Fake::with(&image, |_| None).await;
    // Its queue is full, so that the kernel answers no more.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(connection) =
        tokio::time::timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(connection.unwrap());
        assert!(queued.len() < 100);
    }
    let root = Root::with(|config| config.timeouts.connect_seconds = 120).await;
    let folder = root.folder.path().join("certs.d/registry.example");
    std::fs::create_dir_all(&folder).unwrap();
    let text =
        format!("server = \"http://{}\"\n[host.\"http://{address}\"]\ndial_timeout = \"250ms\"\n", server.address);
    std::fs::write(folder.join("hosts.toml"), text).unwrap();
    let begin = Instant::now();
    assert_eq!(root.pull(NAME).await.unwrap().id, image.id());
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_registry_that_does_not_know_head_is_asked_for_the_manifest() {
    let image = image();
    let fake = Fake::with(&image, |seen| (seen.method == "HEAD").then(|| Reply::status(405))).await;
    let root = Root::new().await;
    for _ in 0..2 {
        assert_eq!(root.pull(&fake.name()).await.unwrap().id, image.id());
    }
    assert_eq!(fake.seen().iter().filter(|seen| seen.method == "HEAD").count(), 1);
}

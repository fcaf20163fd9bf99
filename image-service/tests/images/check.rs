//! Damage to the store, found and repaired.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Timestamps, XattrFlags, setxattr, utimensat};
use serde_json::{Value, json};
use tar::EntryType;
use tokio::sync::mpsc;
use tripod_engine::{ContainerId, plugin::Provisioner};
use tripod_image_service::{CheckEvent, CheckRequest, CheckSummary, Digest, ImageService, RegistryAuth};

use super::{
    fake::{Fake, Reply},
    fixture::{Compression, Image, Layer, OCI_MANIFEST, Tar},
    root::{Root, detached, visible},
    store::{names, settle},
};

/// What a check says, all of it.
pub async fn check(images: &ImageService, request: CheckRequest) -> (Vec<CheckEvent>, CheckSummary) {
    let (sender, mut receiver) = mpsc::channel(8);
    let all = async {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    };
    let (summary, events) = tokio::join!(images.check(request, sender), all);
    (events, summary.unwrap())
}

/// A check must find nothing.
pub async fn assert_sound(images: &ImageService) {
    let (events, summary) = check(images, CheckRequest::default()).await;
    assert_eq!(summary.broken, 0, "{events:?}");
}

/// Problems by path, or by object where there is none.
fn problems(events: &[CheckEvent]) -> Vec<(String, String)> {
    let problem = |event: &CheckEvent| match event {
        CheckEvent::Problem(problem) => {
            Some((problem.path.clone().unwrap_or(problem.object.clone()), problem.what.clone()))
        }
        _ => None,
    };
    events.iter().filter_map(problem).collect()
}

fn repair() -> CheckRequest {
    CheckRequest { repair: true, ..CheckRequest::default() }
}

/// A layer with everything in it that a layer can have.
fn rich() -> Layer {
    let big = "0123456789abcdef".repeat(40_000);
    let tar = Tar::new()
        .dir("etc/")
        .file("etc/content", "right")
        .file("etc/size", "right")
        .file("etc/mode", "x")
        .file("etc/owner", "x")
        .file("etc/time", "x")
        .file("etc/missing", "x")
        .file("etc/kind", "x")
        .file("etc/replaced", "first")
        .file("etc/replaced", "second")
        .file("big", &big)
        .file("implied/deeply/file", "x")
        .hard_link("etc/hard", "etc/content")
        .hard_link("etc/cut", "etc/content")
        .symlink("etc/link", "content")
        .device("null", (1, 3))
        .entry(EntryType::Fifo, "pipe", "", b"", 0o600, (5, 6))
        .pax(&[("SCHILY.xattr.user.note", b"hello")])
        .file("etc/attribute", "x")
        .file("lib/.wh..wh..opq", "")
        .file("lib/new", "x")
        .file(".wh.gone", "")
        .entry(EntryType::Regular, "suid", "", b"#!", 0o4755, (0, 0));
    Layer::new(&tar.finish(), Compression::Gzip)
}

fn damage(fs: &Path) {
    let etc = fs.join("etc");
    let before = std::fs::metadata(etc.join("content")).unwrap();
    // In place, at the same size, with the time set back: only the content tells.
    std::fs::write(etc.join("content"), "wrong").unwrap();
    let time = rustix::fs::Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, etc.join("content"), &times, AtFlags::empty()).unwrap();
    std::fs::write(etc.join("size"), "longer than before").unwrap();
    std::fs::set_permissions(etc.join("mode"), PermissionsExt::from_mode(0o666)).unwrap();
    chown(etc.join("owner"), Some(12), Some(34)).unwrap();
    std::fs::File::open(etc.join("time")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    std::fs::remove_file(etc.join("missing")).unwrap();
    std::fs::remove_file(etc.join("kind")).unwrap();
    std::fs::create_dir(etc.join("kind")).unwrap();
    std::fs::remove_file(etc.join("cut")).unwrap();
    std::fs::write(etc.join("cut"), "wrong").unwrap();
    std::fs::remove_file(etc.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", etc.join("link")).unwrap();
    setxattr(etc.join("attribute"), "user.note", b"other", XattrFlags::empty()).unwrap();
    rustix::fs::removexattr(fs.join("lib"), "trusted.overlay.opaque").unwrap();
    std::fs::remove_file(fs.join("gone")).unwrap();
    std::fs::write(fs.join("added"), "x").unwrap();
    std::fs::remove_dir_all(fs.join("implied")).unwrap();
    std::fs::remove_file(fs.join("suid")).unwrap();
}

#[tokio::test]
async fn every_kind_of_damage_is_found_and_repaired() {
    let (image, root) = (Image::new(vec![rich(), Tar::new().file("top", "x").gzip()]), Root::new().await);
    let fake = Fake::with(&image, |_| None).await;
    let pulled = root.pull(&fake.name()).await.unwrap();
    let (events, summary) = check(&root.images, CheckRequest::default()).await;
    assert_eq!(summary.broken, 0, "{events:?}");
    assert_eq!((summary.images, summary.layers, summary.blobs), (1, 2, 2));
    assert!(summary.bytes > 640_000, "{summary:?}");
    let (overlay, container) = (root.images.overlay(), ContainerId::random());
    let mount = detached(overlay.provision(&pulled.id, &container, None).await.unwrap());
    let fs = root.path().join("layers").join(image.layers[0].diff_id.hex()).join("fs");
    damage(&fs);
    let (events, summary) = check(&root.images, CheckRequest::default()).await;
    assert_eq!((summary.broken, summary.repaired), (1, 0));
    let found = problems(&events);
    for (path, what) in [
        ("etc/content", "content was changed"),
        ("etc/size", "18 bytes, not 5"),
        ("etc/mode", "mode is 0666, not 0644"),
        ("etc/owner", "owner is 12:34, not 0:0"),
        ("etc/time", "time was changed"),
        ("etc/missing", "file is missing"),
        ("etc/kind", "file has become a folder"),
        ("etc/cut", "no hard link"),
        ("etc/link", "leads elsewhere"),
        ("etc/attribute", "extended attributes"),
        ("lib", "extended attributes"),
        ("gone", "whiteout is missing"),
        ("added", "file was added"),
        ("implied", "folder is missing"),
        ("implied/deeply/file", "file is missing"),
        ("suid", "file is missing"),
    ] {
        assert!(found.iter().any(|(at, told)| at == path && told.contains(what)), "{path}: {what}: {found:?}");
    }
    // And nothing else, but folders whose time has changed with what is in them.
    assert!(found.iter().all(|(path, _)| !["big", "null", "pipe", "top", "etc/replaced"].contains(&path.as_str())));
    let asked = fake.counts()[&format!("/v2/test/image/blobs/{}", image.layers[0].digest)];
    let (events, summary) = check(&root.images, repair()).await;
    assert_eq!((summary.broken, summary.repaired), (1, 1), "{events:?}");
    let told = events.iter().any(|event| {
        matches!(event, CheckEvent::Repaired { containers, from, .. }
            if containers == &[container.to_string()] && from.contains(&image.digest()))
    });
    assert!(told, "{events:?}");
    assert_eq!(fake.counts()[&format!("/v2/test/image/blobs/{}", image.layers[0].digest)], asked + 1);
    assert_sound(&root.images).await;
    // The container goes on with what it has mounted, the next one has the new files.
    assert_eq!(std::fs::read_to_string(visible(&mount).join("etc/content")).unwrap(), "wrong");
    let other = ContainerId::random();
    let fresh = detached(overlay.provision(&pulled.id, &other, None).await.unwrap());
    assert_eq!(std::fs::read_to_string(visible(&fresh).join("etc/content")).unwrap(), "right");
    assert!(!visible(&fresh).join("gone").exists());
    let retired = root.path().join("retired");
    assert_eq!(names(&retired).len(), 2);
    drop((mount, fresh));
    overlay.destroy(&other).await.unwrap();
    overlay.destroy(&container).await.unwrap();
    settle(async || names(&retired).is_empty()).await;
    settle(async || names(&root.path().join("trash")).is_empty()).await;
}

fn blob(root: &Root, digest: &str) -> PathBuf {
    root.path().join("content/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

#[tokio::test]
async fn blobs_and_whole_layers_are_fetched_again() {
    let image = Image::new(vec![rich(), Tar::new().file("top", "x").gzip()]);
    let root = Root::new().await;
    let fake = Fake::with(&image, |_| None).await;
    root.pull(&fake.name()).await.unwrap();
    std::fs::write(blob(&root, &image.id()), "{}").unwrap();
    std::fs::remove_file(blob(&root, &image.digest())).unwrap();
    let layer = |index: usize| root.path().join("layers").join(image.layers[index].diff_id.hex());
    std::fs::remove_dir_all(layer(0)).unwrap();
    std::fs::write(layer(1).join("files"), "tripod files 1\nnonsense").unwrap();
    let (events, summary) = check(&root.images, CheckRequest::default()).await;
    assert_eq!(summary.broken, 4, "{events:?}");
    let found = problems(&events);
    for (object, what) in [
        (format!("blob {}", image.id()), "other content"),
        (format!("blob {}", image.digest()), "missing"),
        (format!("layer {}", image.layers[0].diff_id), "missing"),
        (format!("layer {}", image.layers[1].diff_id), "record of its files is damaged"),
    ] {
        assert!(found.iter().any(|(at, told)| *at == object && told.contains(what)), "{object}: {found:?}");
    }
    let (events, summary) = check(&root.images, repair()).await;
    assert_eq!(summary.repaired, 4, "{events:?}");
    assert_sound(&root.images).await;
    std::fs::write(layer(0).join("skeleton.zst"), "nonsense").unwrap();
    let (events, summary) = check(&root.images, repair()).await;
    assert_eq!((summary.broken, summary.repaired), (1, 1), "{events:?}");
    assert!(problems(&events)[0].1.contains("skeleton"), "{events:?}");
    assert_sound(&root.images).await;
    // Only what was asked for is looked at.
    std::fs::remove_dir_all(layer(0).join("fs")).unwrap();
    let request = CheckRequest { images: vec![fake.name()], ..CheckRequest::default() };
    assert_eq!(check(&root.images, request).await.1.broken, 1);
    let request = CheckRequest { images: vec!["absent".into()], ..CheckRequest::default() };
    let error = root.images.check(request, mpsc::channel(1).0).await.unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
}

#[tokio::test]
async fn repairs_take_credentials_and_say_what_is_missing() {
    let image = Image::new(vec![rich()]);
    let fake = Fake::with(&image, |seen| {
        let known = seen.header("authorization") == Some("Basic bWU6c2VjcmV0");
        (!known).then(|| Reply::Answer(401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new()))
    })
    .await;
    let root = Root::new().await;
    let auth = || Some(RegistryAuth { username: "me".into(), password: "secret".into(), ..RegistryAuth::default() });
    let request = tripod_image_service::PullRequest { reference: fake.name(), auth: auth(), progress: None };
    root.images.pull(request).await.unwrap();
    let fs = root.path().join("layers").join(image.layers[0].diff_id.hex()).join("fs");
    std::fs::write(fs.join("etc/content"), "wrong").unwrap();
    let (events, summary) = check(&root.images, repair()).await;
    assert_eq!((summary.broken, summary.repaired), (1, 0));
    let why = events.iter().find_map(|event| match event {
        CheckEvent::NotRepaired { why, .. } => Some(why.clone()),
        _ => None,
    });
    let why = why.unwrap();
    assert!(why.contains("--creds") && why.contains(&fake.address), "{why}");
    // What is broken stays as it was.
    assert_eq!(std::fs::read_to_string(fs.join("etc/content")).unwrap(), "wrong");
    let (events, summary) = check(&root.images, CheckRequest { auth: auth(), ..repair() }).await;
    assert_eq!(summary.repaired, 1, "{events:?}");
    assert_sound(&root.images).await;
    root.assert_no_leftovers();
}

#[tokio::test]
async fn files_of_artifacts_are_fetched_again() {
    let blobs: [&[u8]; 2] = [b"weights", b"words"];
    let layers: Vec<Value> = [("model/weights", blobs[0]), ("readme", blobs[1])]
        .map(|(title, blob)| {
            json!({"mediaType": "application/octet-stream", "digest": Digest::of(blob), "size": blob.len(),
                   "annotations": {"org.opencontainers.image.title": title}})
        })
        .to_vec();
    let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2});
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.example.model",
                          "config": config, "layers": layers});
    let served = Image { layers: Vec::new(), config: b"{}".to_vec(), manifest: manifest.to_string().into_bytes() };
    let fake = Fake::with(&served, move |seen| {
        let blob = blobs.iter().find(|blob| seen.path.ends_with(&Digest::of(blob).to_string()))?;
        Some(Reply::ok(blob))
    })
    .await;
    let root = Root::new().await;
    let artifact = root.pull(&fake.name()).await.unwrap();
    assert_eq!(artifact.id, served.digest());
    let layers: Vec<PathBuf> =
        std::fs::read_dir(root.path().join("layers")).unwrap().map(|layer| layer.unwrap().path()).collect();
    let [layer] = &layers[..] else { panic!("{layers:?}") };
    let weights = layer.join("fs/model/weights");
    std::fs::write(&weights, "WEIGHTS").unwrap();
    std::fs::write(blob(&root, &artifact.id), "{}").unwrap();
    let (events, summary) = check(&root.images, repair()).await;
    assert_eq!((summary.broken, summary.repaired), (2, 2), "{events:?}");
    assert_eq!(std::fs::read(&weights).unwrap(), blobs[0]);
    assert_sound(&root.images).await;
    std::fs::remove_dir_all(layer).unwrap();
    let (events, summary) = check(&root.images, repair()).await;
    assert_eq!((summary.broken, summary.repaired), (1, 1), "{events:?}");
    assert_sound(&root.images).await;
    root.assert_no_leftovers();
}

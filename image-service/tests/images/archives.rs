//! Archives in and out, with skopeo and umoci (Debian's packages) on the other side.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tripod_engine::{ContainerId, Error, Kind, plugin::Provisioner};
use tripod_image_service::{ArchiveFormat, Digest, Image as Stored, LoadRequest};

use super::{
    fixture::{Compression, Image, Layer, OCI_INDEX, OCI_MANIFEST, Tar},
    registry::Registry,
    root::{Root, detached, visible},
};

/// Paths and contents.
pub type Files = Vec<(String, Vec<u8>)>;

/// Hands an archive over in pieces of an odd size.
pub async fn load(
    root: &Root,
    archive: &[u8],
    name: Option<&str>,
    platform: Option<&str>,
) -> Result<Vec<Stored>, Error> {
    let (sink, source) = mpsc::channel(2);
    let pieces: Vec<Bytes> = archive.chunks(70_001).map(Bytes::copy_from_slice).collect();
    let sent = tokio::spawn(async move {
        for piece in pieces {
            if sink.send(Ok(piece)).await.is_err() {
                return;
            }
        }
    });
    let request = LoadRequest { archive: source, name: name.map(str::to_owned), platform: platform.map(str::to_owned) };
    let loaded = root.images.load(request).await;
    sent.await.unwrap();
    nothing_is_left(root).await;
    loaded
}

/// Waits until nothing is being staged: what the store does in the background passes through there, too.
pub async fn nothing_is_left(root: &Root) {
    let staging = root.path().join("staging");
    for _ in 0..600 {
        if std::fs::read_dir(&staging).unwrap().next().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    root.assert_no_leftovers();
}

async fn save(root: &Root, images: &[&str], format: ArchiveFormat) -> Result<Vec<u8>, Error> {
    let mut saved = root.images.save(images.iter().map(|&image| image.to_owned()).collect(), format).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = saved.bytes.recv().await {
        let piece = piece?;
        assert!(piece.len() <= 1 << 20);
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, saved.size);
    Ok(bytes)
}

/// A tar of these files, in this order.
pub fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

pub fn descriptor(image: &Image, more: &Value) -> Value {
    let mut descriptor = json!({"mediaType": OCI_MANIFEST, "digest": image.digest(), "size": image.manifest.len()});
    descriptor.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    descriptor
}

/// The files of an OCI layout, blobs first, as programs that walk a folder write them.
pub fn layout(images: &[&Image], index: &[Value]) -> Files {
    let mut files: Files = Vec::new();
    for image in images {
        let blobs = image.blobs().into_iter().chain([(Digest::of(&image.manifest), image.manifest.clone())]);
        for (digest, content) in blobs {
            if !files.iter().any(|(path, _)| *path == blob(&digest)) {
                files.push((blob(&digest), content));
            }
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index});
    files.push(("index.json".into(), index.to_string().into_bytes()));
    files.push(("oci-layout".into(), json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes()));
    files
}

pub fn named(name: &str) -> Value {
    json!({"annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "tag"}})
}

pub fn sample() -> Image {
    sample_in(Compression::Zstd)
}

fn sample_in(compression: Compression) -> Image {
    let below = Tar::new()
        .dir("etc/")
        .file("etc/a", "below")
        .file("gone", "x")
        .file("etc/large", &"text ".repeat(60_000))
        .symlink("link", "etc/a")
        .hard_link("hard", "etc/a");
    let above = Tar::new().file("etc/a", "above").file(".wh.gone", "").dir("empty/");
    Image::new(vec![Layer::new(&below.finish(), Compression::Gzip), Layer::new(&above.finish(), compression)])
}

/// What a container of the image sees.
async fn assert_is_sample(root: &Root, id: &str) {
    let (overlay, container) = (root.images.overlay(), ContainerId::random());
    let mount = detached(overlay.provision(id, &container, None).await.unwrap());
    let read = |path: &str| std::fs::read_to_string(visible(&mount).join(path)).unwrap();
    assert_eq!((read("etc/a"), read("hard")), ("above".into(), "below".into()));
    assert_eq!(read("etc/large").len(), 300_000);
    assert!(!visible(&mount).join("gone").exists());
    drop(mount);
    overlay.destroy(&container).await.unwrap();
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: install Debian's package: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn skopeo(arguments: &[&str]) -> String {
    run("skopeo", &[&["--insecure-policy"], arguments].concat())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[tokio::test]
async fn a_layout_is_loaded_whatever_its_order_and_compression() {
    let image = sample();
    let forward = layout(&[&image], &[descriptor(&image, &named("registry.test/app:1"))]);
    let backward: Vec<_> = forward.iter().rev().cloned().collect();
    let gzip = Layer::new(&tar(&forward), Compression::Gzip).blob;
    for archive in [tar(&forward), tar(&backward), gzip, Layer::new(&tar(&backward), Compression::Zstd).blob] {
        let root = Root::new().await;
        let loaded = load(&root, &archive, None, None).await.unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].id, image.id());
        assert_eq!(loaded[0].repo_tags, ["registry.test/app:1"]);
        assert_eq!(loaded[0].config.cmd, ["/bin/sh"]);
        assert_is_sample(&root, "registry.test/app:1").await;
        // Once more is no work, and changes nothing.
        assert_eq!(load(&root, &archive, None, None).await.unwrap(), loaded);
        assert_eq!(root.images.list(), loaded);
        let renamed = load(&root, &archive, Some("other:2"), None).await.unwrap();
        assert_eq!(renamed[0].repo_tags, ["docker.io/library/other:2", "registry.test/app:1"]);
    }
}

#[tokio::test]
async fn what_is_saved_is_the_same_image_elsewhere() {
    let (registry, root, folder) = (Registry::start().await, Root::new().await, tempfile::tempdir().unwrap());
    let (image, other) = (sample(), Image::new(vec![Tar::new().file("other", "1").gzip(), sample().layers[0].clone()]));
    image.push(&registry.address, "test/app", "v1").await;
    other.push(&registry.address, "test/other", "v2").await;
    let (first, second) = (format!("{}/test/app:v1", registry.address), format!("{}/test/other:v2", registry.address));
    root.pull(&first).await.unwrap();
    root.pull(&second).await.unwrap();
    for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
        let archive = save(&root, &[&first, &second], format).await.unwrap();
        let copy = Root::new().await;
        let mut loaded = load(&copy, &archive, None, None).await.unwrap();
        loaded.sort_by(|one, other| one.repo_tags.cmp(&other.repo_tags));
        let ids: Vec<&str> = loaded.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, [image.id(), other.id()]);
        assert_eq!([&loaded[0].repo_tags[0], &loaded[1].repo_tags[0]], [&first, &second]);
        assert_is_sample(&copy, &first).await;
        // A copy of the copy is the same, byte for byte.
        assert!(save(&copy, &[&first, &second], format).await.unwrap() == archive);
    }
    // Others read it: all digests are checked on the way, and the configuration's is the image's ID.
    let oci = write(folder.path(), "oci.tar", &save(&root, &[&first], ArchiveFormat::Oci).await.unwrap());
    let docker = write(folder.path(), "docker.tar", &save(&root, &[&first], ArchiveFormat::Docker).await.unwrap());
    let layout = folder.path().join("layout");
    for source in [format!("oci-archive:{}:v1", oci.display()), format!("docker-archive:{}", docker.display())] {
        let raw: Value = serde_json::from_str(&skopeo(&["inspect", "--raw", &source])).unwrap();
        assert_eq!(raw["config"]["digest"], image.id(), "{source}");
        let diff_ids: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let layers: Vec<&str> =
            raw["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap()).collect();
        assert_eq!(layers, diff_ids, "{source}");
        skopeo(&["copy", "-q", &source, &format!("oci:{}:v1", layout.display())]);
    }
    let bundle = folder.path().join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:v1", layout.display()), bundle.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/etc/a")).unwrap(), "above");
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/hard")).unwrap(), "below");
    assert!(!bundle.join("rootfs/gone").exists());
}

#[tokio::test]
async fn what_skopeo_writes_is_loaded() {
    let (registry, folder) = (Registry::start().await, tempfile::tempdir().unwrap());
    // Docker's images know no zstd.
    let image = sample_in(Compression::Gzip);
    image.push(&registry.address, "test/app", "v1").await;
    let source = format!("docker://{}/test/app:v1", registry.address);
    for kind in ["oci-archive", "docker-archive"] {
        let path = folder.path().join(kind);
        let target = format!("{kind}:{}:registry.test/app:v1", path.display());
        skopeo(&["copy", "-q", "--src-tls-verify=false", &source, &target]);
        let root = Root::new().await;
        let loaded = load(&root, &std::fs::read(&path).unwrap(), None, None).await.unwrap();
        assert_eq!(loaded[0].repo_tags, ["registry.test/app:v1"], "{kind}");
        if kind == "oci-archive" {
            // Docker's form of the configuration is skopeo's own.
            assert_eq!(loaded[0].id, image.id());
        }
        let diff_ids: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        assert_eq!(loaded[0].layers, diff_ids, "{kind}");
        assert_is_sample(&root, "registry.test/app:v1").await;
    }
}

#[tokio::test]
async fn old_docker_archives_have_layers_once_and_links_to_them() {
    let one = Layer::new(&Tar::new().file("f", "1").finish(), Compression::Plain);
    let config = |layers: &[&Layer]| {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string()
    };
    let two = Layer::new(&Tar::new().file("g", "2").finish(), Compression::Plain);
    let manifest = json!([
        {"Config": "first.json", "RepoTags": ["app:1", "app:2"], "Layers": ["aa/layer.tar", "bb/layer.tar"]},
        {"Config": "second.json", "RepoTags": null, "Layers": ["cc/layer.tar"]},
    ]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        match link {
            "" => builder.append_data(&mut header, path, content).unwrap(),
            link => builder.append_link(&mut header, path, link).unwrap(),
        }
    };
    add(tar::EntryType::Directory, "aa/", "", b"");
    add(tar::EntryType::Regular, "aa/VERSION", "", b"1.0");
    add(tar::EntryType::Regular, "aa/json", "", b"{\"id\":\"aa\"}");
    add(tar::EntryType::Regular, "aa/layer.tar", "", &one.blob);
    add(tar::EntryType::Regular, "bb/layer.tar", "", &two.blob);
    add(tar::EntryType::Symlink, "cc/layer.tar", "../bb/layer.tar", b"");
    add(tar::EntryType::Regular, "first.json", "", config(&[&one, &two]).as_bytes());
    add(tar::EntryType::Regular, "second.json", "", config(&[&two]).as_bytes());
    add(tar::EntryType::Regular, "manifest.json", "", manifest.to_string().as_bytes());
    add(tar::EntryType::Regular, "repositories", "", b"{}");
    let (root, archive) = (Root::new().await, builder.into_inner().unwrap());
    let mut loaded = load(&root, &archive, None, None).await.unwrap();
    loaded.sort_by_key(|image| image.layers.len());
    assert!(loaded[0].repo_tags.is_empty() && loaded[0].layers == [two.diff_id.to_string()]);
    assert_eq!(loaded[1].repo_tags, ["docker.io/library/app:1", "docker.io/library/app:2"]);
    assert_eq!(root.images.get(&loaded[0].id).as_ref(), Some(&loaded[0]), "an image without a name is found by its ID");
    let error = load(&root, &archive, Some("one:1"), None).await.unwrap_err();
    assert!(error.to_string().contains("2 images"), "{error}");
}

#[tokio::test]
async fn the_platform_chooses() {
    let (image, other) = (sample(), Image::new(vec![Tar::new().file("other", "1").gzip()]));
    let platform = |architecture: &str| json!({"platform": {"os": "linux", "architecture": architecture}});
    let index = [descriptor(&image, &platform("amd64")), descriptor(&other, &platform("s390x"))];
    let (root, archive) = (Root::new().await, tar(&layout(&[&image, &other], &index)));
    let loaded = load(&root, &archive, Some("app:1"), Some("linux/amd64")).await.unwrap();
    assert_eq!(loaded[0].id, image.id());
    // What the index says of the other one is not what its configuration says.
    let error = load(&root, &archive, Some("app:1"), Some("linux/s390x")).await.unwrap_err();
    assert!(error.to_string().contains("linux/s390x") && error.to_string().contains("linux/amd64"), "{error}");
    let error = load(&root, &archive, None, Some("linux/arm64")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let error = load(&root, &archive, None, Some("linux")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn layers_that_are_here_are_not_unpacked_again() {
    let (registry, root, image) = (Registry::start().await, Root::new().await, sample());
    image.push(&registry.address, "test/app", "v1").await;
    root.pull(&format!("{}/test/app:v1", registry.address)).await.unwrap();
    // Only documents: layers are known from the image that was pulled, by the digests of their compressed form.
    let mut files = layout(&[&image], &[descriptor(&image, &named("copy:1"))]);
    files.retain(|(_, content)| content.starts_with(b"{"));
    assert_eq!(files.len(), 4);
    assert_eq!(load(&root, &tar(&files), None, None).await.unwrap()[0].id, image.id());
    // Layers that are there may even be wrong: nobody reads them.
    for layer in &image.layers {
        files.push((blob(&layer.digest), vec![0x1f; 5000]));
    }
    assert_eq!(load(&root, &tar(&files), None, None).await.unwrap()[0].id, image.id());
    let elsewhere = Root::new().await;
    let error = load(&elsewhere, &tar(&files), None, None).await.unwrap_err();
    assert!(error.to_string().contains(&blob(&image.layers[0].digest)), "{error}");
}

#[tokio::test]
async fn what_cannot_be_saved_is_said_before_the_first_byte() {
    let (registry, root, image) = (Registry::start().await, Root::new().await, sample());
    image.push(&registry.address, "test/app", "v1").await;
    let name = format!("{}/test/app:v1", registry.address);
    root.pull(&name).await.unwrap();
    let error = save(&root, &["absent:1"], ArchiveFormat::Oci).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let layer = root.path().join("layers").join(image.layers[0].diff_id.hex());
    let large = layer.join("fs/etc/large");
    let content = std::fs::read(&large).unwrap();
    std::fs::write(&large, "short").unwrap();
    let error = save(&root, &[&name], ArchiveFormat::Oci).await.unwrap_err();
    assert!(error.to_string().contains("etc/large"), "{error}");
    std::fs::write(&large, vec![b'x'; content.len()]).unwrap();
    let mut saved = root.images.save(vec![name.clone()], ArchiveFormat::Oci).await.unwrap();
    let mut last = None;
    while let Some(piece) = saved.bytes.recv().await {
        last = Some(piece);
    }
    let error = last.unwrap().unwrap_err();
    assert!(error.to_string().contains("etc/large"), "the last piece must be the error: {error}");
    std::fs::write(&large, content).unwrap();
    assert!(save(&root, &[&name], ArchiveFormat::Oci).await.is_ok());
    std::fs::remove_file(layer.join("skeleton.zst")).unwrap();
    let error = save(&root, &[&name], ArchiveFormat::Oci).await.unwrap_err();
    assert!(error.to_string().contains("pull them again"), "{error}");
}

#[tokio::test]
async fn saving_goes_on_while_the_image_is_removed() {
    let (registry, root) = (Registry::start().await, Root::new().await);
    let text: String =
        (0..2_000_000_u32).map(|index| char::from(b'a' + (index.wrapping_mul(7919) >> 8) as u8 % 26)).collect();
    let image = Image::new(vec![Tar::new().file("big", &text).gzip(), Tar::new().file("small", "x").gzip()]);
    image.push(&registry.address, "test/app", "v1").await;
    let pulled = root.pull(&format!("{}/test/app:v1", registry.address)).await.unwrap();
    let mut saved = root.images.save(vec![pulled.id.clone()], ArchiveFormat::Docker).await.unwrap();
    let mut bytes = saved.bytes.recv().await.unwrap().unwrap().to_vec();
    root.images.remove(&pulled.id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    while let Some(piece) = saved.bytes.recv().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let copy = Root::new().await;
    let loaded = load(&copy, &bytes, None, None).await.unwrap();
    assert_eq!(loaded[0].id, pulled.id);
    assert!(loaded[0].repo_tags.is_empty(), "an ID is no name");
}

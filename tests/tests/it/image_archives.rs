//! `tripod image load` and `save`: images go from one store to another, and are the same there.

use std::{fs, path::Path, process::Stdio, time::Duration};

use tokio::io::AsyncWriteExt;
use tripod_tests::{BUSYBOX, Image, Layer, Node, Tree, eventually, host_pod, shell, tests, tripod, with_input, within};

tests![
    an_image_leaves_and_comes_back,
    archives_need_no_daemon,
    a_broken_archive_leaves_nothing,
    a_load_that_is_cut_off_leaves_nothing,
    skopeo_reads_what_it_knows,
];

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end with this input.
async fn run(arguments: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    with_input(tripod(arguments), input).await
}

async fn said(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let (code, output, error) = run(arguments, input).await;
    assert_eq!(code, 0, "{arguments:?}: {error}");
    output
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn unpack(archive: &[u8], folder: &Path) {
    tar::Archive::new(archive).unpack(folder).unwrap();
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

async fn an_image_leaves_and_comes_back(node: &mut Node) {
    let cri = node.ready().await;
    let id = cri.pull(BUSYBOX).await.unwrap();
    let file = node.folder().join("saved.tar");
    said(&["image", "save", "-o", file.to_str().unwrap(), BUSYBOX], b"").await;
    let archive = fs::read(&file).unwrap();
    let piped = said(&["image", "save", BUSYBOX], b"").await;
    assert!(piped == archive, "standard output gets the same");
    let docker = said(&["image", "save", "--format", "docker-archive", BUSYBOX], b"").await;
    assert!(docker.len() > archive.len());
    let layout = node.folder().join("layout");
    unpack(&archive, &layout);
    let gone = async || {
        said(&["image", "rm", BUSYBOX], b"").await;
        eventually("the layers to go", LIMIT, async || is_empty(&node.root().join("layers")).then_some(())).await;
    };
    let expected = format!("{id} {BUSYBOX}\n");
    gone().await;
    assert_eq!(text(said(&["image", "load", "-i", file.to_str().unwrap()], b"").await), expected);
    gone().await;
    assert_eq!(text(said(&["image", "load", "-i", layout.to_str().unwrap()], b"").await), expected);
    gone().await;
    assert_eq!(text(said(&["image", "load", "-q"], &docker).await), format!("{id}\n"));
    assert_eq!(text(said(&["image", "load", "--name", "registry.test/copy:2"], &archive).await.clone()), {
        format!("{id} {BUSYBOX} registry.test/copy:2\n")
    });
    let (_, container) = cri.run_in_pod(&host_pod("main"), &shell("main", "sleep 1000")).await.unwrap();
    assert_eq!(cri.status(&container).await.unwrap().image_id, id);
}

async fn archives_need_no_daemon(node: &mut Node) {
    let registry = node.registry().await;
    registry.push("busybox:1", &Image::busybox());
    let cri = node.start().await;
    cri.pull(BUSYBOX).await.unwrap();
    let archive = said(&["image", "save", BUSYBOX], b"").await;
    node.stop().await;
    let (config, other) = (node.folder().join("config.toml"), node.folder().join("other"));
    let store = ["--config", config.to_str().unwrap(), "--root", other.to_str().unwrap()];
    let words = |words: &[&'static str]| [words, &store[..]].concat();
    let id = Image::busybox().id();
    assert_eq!(text(said(&words(&["image", "load", "-q"]), &archive).await), format!("{id}\n"));
    assert!(said(&words(&["image", "save", BUSYBOX]), b"").await == archive, "a copy of a copy is the same");
}

async fn a_broken_archive_leaves_nothing(node: &mut Node) {
    let cri = node.ready().await;
    cri.pull(BUSYBOX).await.unwrap();
    let archive = said(&["image", "save", BUSYBOX], b"").await;
    said(&["image", "rm", BUSYBOX], b"").await;
    let (root, folder) = (node.root(), node.folder().to_owned());
    eventually("the layers to go", LIMIT, async || is_empty(&root.join("layers")).then_some(())).await;
    // A bit of the last layer, far behind its header.
    let mut wrong = archive.clone();
    let position = wrong.len() - 100_000;
    wrong[position] ^= 1;
    for (input, word) in
        [(&wrong[..], "digest"), (&archive[..archive.len() / 2], "middle"), (b"text".as_slice(), "broken")]
    {
        let (code, output, error) = run(&["image", "load"], input).await;
        assert!(code == 1 && output.is_empty() && error.contains(word), "{code}: {error}");
    }
    let (code, _, error) = run(&["image", "load", "-i", folder.to_str().unwrap()], b"").await;
    assert!(code == 1 && error.contains("index.json"), "{error}");
    assert!(cri.all_images().await.is_empty());
    let clean = async || (is_empty(&root.join("layers")) && is_empty(&root.join("staging"))).then_some(());
    eventually("what was unpacked to go", LIMIT, clean).await;
    let target = folder.join("out.tar");
    let (code, _, error) = run(&["image", "save", "-o", target.to_str().unwrap(), BUSYBOX], b"").await;
    assert!(code == 1 && error.contains(BUSYBOX), "{error}");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(files.into_iter().all(|name| !name.starts_with("out.tar")));
}

async fn a_load_that_is_cut_off_leaves_nothing(node: &mut Node) {
    let registry = node.registry().await;
    let noise: Vec<u8> = (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    registry.push("large:1", &Image::new(vec![Layer::plain(Tree::default().file("noise", 0o644, &noise))]));
    let cri = node.start().await;
    cri.pull("registry.test/large:1").await.unwrap();
    let archive = said(&["image", "save", "registry.test/large:1"], b"").await;
    said(&["image", "rm", "registry.test/large:1"], b"").await;
    let root = node.root();
    eventually("the layers to go", LIMIT, async || is_empty(&root.join("layers")).then_some(())).await;
    let mut child = tripod(&["image", "load"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    within("half of the archive", LIMIT, stdin.write_all(&archive[..archive.len() / 2])).await.unwrap();
    // It is being unpacked.
    eventually("a staging folder", LIMIT, async || (!is_empty(&root.join("staging"))).then_some(())).await;
    child.kill().await.unwrap();
    eventually("the staging folder to go", LIMIT, async || is_empty(&root.join("staging")).then_some(())).await;
    assert!(cri.all_images().await.is_empty());
    // Nothing stands in the way of the next.
    said(&["image", "load"], &archive).await;
    assert_eq!(cri.all_images().await.len(), 1);
}

async fn skopeo_reads_what_it_knows(node: &mut Node) {
    let cri = node.ready().await;
    let id = cri.pull(BUSYBOX).await.unwrap();
    let layout = node.folder().join("layout");
    unpack(&said(&["image", "save", BUSYBOX], b"").await, &layout);
    let file = node.folder().join("docker.tar");
    fs::write(&file, said(&["image", "save", "--format", "docker-archive", BUSYBOX], b"").await).unwrap();
    said(&["image", "rm", BUSYBOX], b"").await;
    let (oci, docker) = (format!("oci:{}", layout.display()), format!("docker-archive:{}", file.display()));
    for from in [oci.as_str(), &docker] {
        let loaded = said(&["image", "load", "--from", from, "--name", "registry.test/copy:1"], b"").await;
        assert_eq!(text(loaded), format!("{id} registry.test/copy:1\n"), "{from}");
        said(&["image", "rm", "registry.test/copy:1"], b"").await;
    }
    let nowhere = format!("oci:{}", node.folder().join("nowhere").display());
    let (code, _, error) = run(&["image", "load", "--from", &nowhere], b"").await;
    assert!(code == 1 && error.contains("skopeo failed"), "{error}");
    let (code, _, error) = run(&["image", "load", "--from", "docker://registry.test/busybox:1"], b"").await;
    assert!(code != 0 && error.contains("tripod pull"), "{error}");

    // What was cut off is no archive, and the reason is the one on this side.
    let (programs, layout) = (node.folder().join("programs"), node.folder().join("half.tar"));
    fs::create_dir(&programs).unwrap();
    fs::write(&layout, &fs::read(&file).unwrap()[..100_000]).unwrap();
    let skopeo = programs.join("skopeo");
    fs::write(&skopeo, format!("#!/bin/sh\n/bin/cat {}\nexit 3\n", layout.display())).unwrap();
    fs::set_permissions(&skopeo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = tripod(&["image", "load", "--from", "oci:any"]);
    command.env("PATH", &programs);
    let (code, _, error) = with_input(command, b"").await;
    assert!(code == 1 && error.contains("skopeo failed (exit status: 3)"), "{error}");
    assert!(cri.all_images().await.is_empty());
}

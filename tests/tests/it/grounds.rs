//! The store and its containers on other filesystems than the machine's: XFS, Btrfs, and memory.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tripod_cri_api::v1::{ContainerState, StatusRequest};
use tripod_tests::{
    Cri, Disk, Format, Image, Layer, Node, Registry, Tree, busybox, eventually, host_pod, image_spec, shell, tests,
    tripod, with_input,
};

use crate::{disk_faults::sound, userns};

tests![
    a_node_on_xfs,
    a_node_on_btrfs,
    a_node_in_memory,
    btrfs_has_an_end_of_links,
    folders_of_the_store_on_other_ground_are_refused,
];

/// An XFS has at least 300 MiB. Nothing is written that is not used.
const DISK_BYTES: u64 = 1 << 30;
/// Bytes of a file, far more than a copy of all else takes.
const LARGE: usize = 12 << 20;
const LIMIT: Duration = Duration::from_secs(60);

async fn a_node_on_xfs(node: &mut Node) {
    on(node, Format::Xfs).await;
}

async fn a_node_on_btrfs(node: &mut Node) {
    on(node, Format::Btrfs).await;
}

async fn on(node: &mut Node, format: Format) {
    let mut disk = Disk::of(format, &node.folder().join("disk"), &node.root(), DISK_BYTES, &[]);
    let cri = lives(node).await;
    shares_blocks(node, &cri, &disk).await;
    clear(node).await;
    disk.unmount().await;
}

async fn a_node_in_memory(node: &mut Node) {
    fs::create_dir_all(node.root()).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=256m", "tmpfs"], &node.root());
    lives(node).await;
    clear(node).await;
    unmount(node.root(), UnmountFlags::DETACH).unwrap();
}

fn run(program: &str, arguments: &[&str], last: &Path) {
    let status = Command::new(program).args(arguments).arg(last).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// Content that neither compresses nor repeats.
fn noise(bytes: usize) -> Vec<u8> {
    let mut seed = 9_u32;
    let next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Two images that have a large file in common, in layers that differ. They hide, link and mark files.
fn push(registry: &Registry) {
    let large = noise(LARGE);
    let first = busybox()
        .file("usr/large", 0o644, &large)
        .hardlink("usr/second", "usr/large")
        .file("usr/lib/same", 0o644, &large[..1 << 20])
        .file("a/old", 0o644, "old")
        .file("b/old", 0o644, "old")
        .file("gone", 0o644, "old")
        .file_with("marked", 0o4755, b"marked", "user.mark", b"kept");
    let second = Tree::default()
        .file(".wh.gone", 0o644, "")
        .file("a/.wh..wh..opq", 0o644, "")
        .file("a/new", 0o644, "new")
        .file(".wh.b", 0o644, "")
        .file("b/new", 0o644, "new");
    registry.push("one:1", &Image::new(vec![Layer::plain(first), Layer::gzip(second)]));
    let other = busybox().file("usr/lib/same", 0o644, &large[..1 << 20]).file("other", 0o644, "other");
    registry.push("two:1", &Image::new(vec![Layer::plain(other)]));
}

const ONE: &str = "registry.test/one:1";
const TWO: &str = "registry.test/two:1";
/// What a container says of its files: what is hidden is gone, links are links, attributes and modes are there.
const SEES: &str = "find /a /b /gone 2>/dev/null | sort | tr '\\n' ' '; stat -c '%h %a %s' /usr/large /marked; \
                    test /usr/large -ef /usr/second && echo linked";
const SEEN: &str = "/a /a/new /b /b/new 2 644 12582912\n1 4755 6\nlinked\n";

async fn provisioner(cri: &Cri) -> String {
    let status = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    assert!(
        status.runtime_handlers.iter().all(|handler| handler.features.as_ref().unwrap().user_namespaces),
        "no user namespaces here: {:?}",
        status.info
    );
    status.info["provisioner"].clone()
}

/// Files of a name in all layers.
fn in_layers(node: &Node, name: &str) -> Vec<PathBuf> {
    let layers = fs::read_dir(node.root().join("layers")).unwrap().flatten();
    layers.map(|layer| layer.path().join("fs").join(name)).filter(|path| path.exists()).collect()
}

/// Pulls, runs, and is replaced, with overlays.
async fn lives(node: &mut Node) -> Cri {
    let registry = node.registry().await;
    push(&registry);
    let cri = node.start().await;
    assert_eq!(provisioner(&cri).await, "overlay");
    // One after the other, so that the second finds what the first has.
    cri.pull(ONE).await.unwrap();
    cri.pull(TWO).await.unwrap();
    let same = in_layers(node, "usr/lib/same");
    let inodes: Vec<u64> = same.iter().map(|path| path.metadata().unwrap().ino()).collect();
    assert!(inodes.len() == 2 && inodes[0] == inodes[1], "not one file: {same:?} {inodes:?}");
    assert!(in_layers(node, "gone").iter().any(|path| path.metadata().unwrap().file_type().is_char_device()));
    sound("after pulls").await;

    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let mut sees = shell("sees", SEES);
    sees.image = Some(image_spec(ONE));
    assert_eq!(cri.outcome(&pod, &config, &sees).await.unwrap().1, SEEN);
    let mut writes = shell("writes", "echo more >>/usr/large; rm /usr/lib/same; mkdir /made; exec sleep 1000");
    writes.image = Some(image_spec(ONE));
    let writes = cri.run(&pod, &config, &writes).await.unwrap();
    eventually("what it writes", LIMIT, async || {
        (cri.sh(&writes, "stat -c %s /usr/large; ls -d /made || true").await == "12582917\n/made").then_some(())
    })
    .await;
    // In a user namespace, files of the image are shown with other owners.
    let (mapped, mapped_config) = userns::pod_at(&cri, "mapped", userns::BASE).await;
    let mut owner = shell("owner", "stat -c '%u %a' /marked; touch /new && stat -c %u /new");
    owner.image = Some(image_spec(ONE));
    assert_eq!(cri.outcome(&mapped, &mapped_config, &owner).await.unwrap().1, "0 4755\n0\n");
    cri.remove_pod(&mapped).await.unwrap();

    let cri = node.restart().await;
    assert_eq!(cri.status(&writes).await.unwrap().state(), ContainerState::ContainerRunning);
    assert_eq!(cri.sh(&writes, "tail -c 5 /usr/large; test -e /usr/lib/same || echo gone").await, "more\ngone");
    sound("after a restart").await;
    // The other image keeps the file that both had.
    cri.remove_pod(&pod).await.unwrap();
    cri.remove_image(ONE).await.unwrap();
    eventually("the end of a layer", LIMIT, async || (in_layers(node, "usr/lib/same").len() == 1).then_some(())).await;
    sound("with one image less").await;
    cri.pull(ONE).await.unwrap();
    cri
}

/// Copies of an image take no room but for what is changed in them.
async fn shares_blocks(node: &mut Node, cri: &Cri, disk: &Disk) {
    assert_eq!(cri.containers().await.len(), 0);
    node.settings.text("image.provisioner", "copy");
    let cri = node.restart().await;
    assert_eq!(provisioner(&cri).await, "copy");
    let config = host_pod("copies");
    let pod = cri.run_pod(&config).await.unwrap();
    let mut container = shell("sees", SEES);
    container.image = Some(image_spec(ONE));
    assert_eq!(cri.outcome(&pod, &config, &container).await.unwrap().1, SEEN);
    let before = disk.used();
    for name in ["first", "second", "third"] {
        let mut container = shell(name, "exec sleep 1000");
        container.image = Some(image_spec(ONE));
        let id = cri.run(&pod, &config, &container).await.unwrap();
        // A part of a file that is written is a container's own; the rest and the image's stay as they are.
        cri.sh(&id, "dd if=/dev/zero of=/usr/large bs=4k count=8 conv=notrunc 2>/dev/null").await;
    }
    let grown = disk.used() - before;
    assert!(grown < LARGE as u64 / 2, "three copies of {LARGE} bytes and some have taken {grown} bytes");
    sound("after containers wrote to copies").await;
    cri.remove_pod(&pod).await.unwrap();
}

/// Removes all, counts what is left, and ends the daemon.
async fn clear(node: &mut Node) {
    let cri = node.daemon().cri();
    node.clear(&cri).await;
    let left = node.left_in_root();
    assert!(left.is_empty(), "left behind: {left:?}");
    node.stop().await;
}

/// Each filesystem has an end of links. An image that wants more is refused by the name, and all else goes on.
async fn btrfs_has_an_end_of_links(node: &mut Node) {
    // As filesystems are that were made before Linux 3.7: a file's names in one folder have a few KiB.
    let old = ["--features", "^extref,^no-holes"];
    let mut disk = Disk::of(Format::Btrfs, &node.folder().join("disk"), &node.root(), DISK_BYTES, &old);
    let registry = node.registry().await;
    push(&registry);
    let many = (0..400)
        .fold(Tree::default().file("first", 0o644, "x"), |tree, link| tree.hardlink(&format!("{link:0>90}"), "first"));
    registry.push("many:1", &Image::new(vec![Layer::gzip(many)]));
    let cri = node.start().await;
    let error = cri.pull("registry.test/many:1").await.unwrap_err();
    for part in ["cannot unpack the layer", &"0".repeat(80), "Too many links"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    cri.pull(ONE).await.unwrap();
    cri.pull(TWO).await.unwrap();
    sound("after too many links").await;
    clear(node).await;
    disk.unmount().await;
}

/// What is unpacked is moved into place by a rename, and files in common are links: neither leaves a filesystem, a
/// subvolume, or a mount.
async fn folders_of_the_store_on_other_ground_are_refused(node: &mut Node) {
    let mut disk = Disk::of(Format::Btrfs, &node.folder().join("disk"), &node.root(), DISK_BYTES, &[]);
    for folder in ["layers", "containers"] {
        run("btrfs", &["--quiet", "subvolume", "create"], &node.root().join(folder));
        refused(node, folder).await;
        run("btrfs", &["--quiet", "subvolume", "delete"], &node.root().join(folder));
        // What the daemon has made before it looked.
        clear_out(&node.root());
    }
    let (trash, elsewhere) = (node.root().join("trash"), node.root().join("elsewhere"));
    fs::create_dir_all(&trash).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    mount_bind(&elsewhere, &trash).unwrap();
    refused(node, "trash").await;
    unmount(&trash, UnmountFlags::empty()).unwrap();
    // A subvolume as a whole is fine.
    node.start().await;
    clear(node).await;
    disk.unmount().await;
}

fn clear_out(root: &Path) {
    for entry in fs::read_dir(root).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
}

async fn refused(node: &Node, folder: &str) {
    let settings = node.folder().join("refused.toml");
    fs::write(&settings, "").unwrap();
    let mut command = tripod(&["serve"]);
    command.arg("--config").arg(&settings).arg("--root").arg(node.root());
    command.arg("--state").arg(node.state()).arg("--socket").arg(node.socket());
    let (code, _, error) = with_input(command, b"").await;
    assert!(code != 0 && !node.socket().exists(), "{error}");
    let path = node.root().join(folder).display().to_string();
    for part in [&path, "subvolume or mount", "mount it as a whole"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

//! Disks that lose their power, fail, or are full, under a daemon that is pulling images.

use std::{
    env, fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tonic::{Code, Status};
use tripod_cri_api::v1::ContainerState;
use tripod_tests::{
    BUSYBOX, Boot, Cri, Disk, Fault, Format, Image, Journal, Layer, Node, Registry, Tree, eventually, host_pod,
    image_spec, shell, tests, tripod, with_input, within,
};

tests![
    power_failures_leave_what_was_synced_and_nothing_else,
    power_failures_of_an_xfs_leave_the_same,
    a_disk_that_fails_is_told_and_survived,
    a_full_disk_is_told_at_every_step,
    a_disk_short_of_room_is_cleared,
];

const DISK_BYTES: u64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(60);
/// How often the disk fails at random moments.
const CUTS: &str = "TRIPOD_TESTS_CUTS";

fn cuts() -> u32 {
    env::var(CUTS).ok().map_or(6, |cuts| cuts.parse().expect("a number of cuts"))
}

/// Images with a layer that all have and one of their own: names and IDs.
pub(crate) fn push(registry: &Registry) -> Vec<(String, String)> {
    let common = Layer::gzip(Tree::default().file("common", 0o644, "common ".repeat(20_000)));
    let image = |number: usize| {
        let own = (0..60).fold(Tree::default(), |tree, file| {
            tree.file(&format!("d{}/f{file}", file % 7), 0o644, format!("{number} {file} ").repeat(500))
        });
        let image = Image::new(vec![common.clone(), Layer::zstd(own)]);
        registry.push(&format!("k{number}:1"), &image);
        (format!("registry.test/k{number}:1"), image.id())
    };
    (0..4).map(image).collect()
}

/// Finds nothing wrong with any image.
pub(crate) async fn sound(when: &str) -> String {
    let (code, output, error) = with_input(tripod(&["image", "check"]), b"").await;
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(code == 0 && output.contains("all is as it should be"), "{when}: {output}{error}");
    output
}

/// Numbers that are different each time, and can be had again.
pub(crate) struct Chance(pub u32);

impl Chance {
    pub fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % below
    }
}

/// Where they begin. On its node each test has the same process ID.
pub(crate) fn seed() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()
}

/// Folders and files of layers that have any content.
fn whole_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => 1 + whole_files(&entry.path()),
            Ok(found) => usize::from(found.len() > 0),
            Err(_) => 0,
        })
        .sum()
}

/// Whether each layer is recorded as synced.
fn all_synced(root: &Path) -> bool {
    fs::read_dir(root.join("layers")).unwrap().all(|layer| {
        let record = fs::read_to_string(layer.unwrap().path().join("layer.json"));
        record.is_ok_and(|record| !record.contains("unsynced_since_boot"))
    })
}

async fn power_failures_leave_what_was_synced_and_nothing_else(node: &mut Node) {
    power_failures(node, Format::Ext4, cuts()).await;
}

/// Its journal is written later, and with it goes whole folders of what was not synced.
async fn power_failures_of_an_xfs_leave_the_same(node: &mut Node) {
    power_failures(node, Format::Xfs, cuts().div_ceil(2)).await;
}

/// The power goes at any moment of parallel pulls, right after the answer to one, and after the sync that follows. What
/// is trusted after the next boot is whole, what was synced is among it, and what is missing can be pulled.
async fn power_failures(node: &mut Node, format: Format, cuts: u32) {
    let registry = node.registry().await;
    let images = push(&registry);
    let mut boot = Boot::new(node.folder());
    let bytes = if format == Format::Xfs { 2 * DISK_BYTES } else { DISK_BYTES };
    let mut disk = Disk::of(format, &node.folder().join("disk"), &node.root(), bytes, &[]);
    let (seed, mut lost) = (seed(), 0);
    let mut chance = Chance(seed);
    for round in 0..cuts {
        let cri = node.start().await;
        let when = format!("power failure {round} of {format:?}, seed {seed}");
        sound(&when).await;
        let mut kept = Vec::new();
        match round % 3 {
            0 => {
                // Right after the answer, which does not wait for the disk.
                for image in cri.all_images().await {
                    cri.remove_image(&image.id).await.unwrap();
                }
                emptied(node).await;
                cri.pull(&images[0].0).await.unwrap();
            }
            1 => {
                for (name, _) in &images {
                    let (cri, name) = (cri.clone(), name.clone());
                    // It ends with the daemon at the latest, in an error.
                    tokio::spawn(async move { cri.pull(&name).await });
                }
                tokio::time::sleep(Duration::from_micros(chance.next(250_000).into())).await;
            }
            _ => {
                for (name, id) in &images[..2] {
                    assert_eq!(&cri.pull(name).await.unwrap(), id);
                    kept.push(id.clone());
                }
                eventually("the sync of all layers", LIMIT, async || all_synced(&node.root()).then_some(())).await;
                disk.sync();
                let (cri, name) = (cri.clone(), images[3].0.clone());
                tokio::spawn(async move { cri.pull(&name).await });
                tokio::time::sleep(Duration::from_micros(chance.next(100_000).into())).await;
            }
        }
        let files = whole_files(&node.root().join("layers"));
        let canary = node.root().join("canary");
        fs::write(&canary, "never synced").unwrap();
        disk.cut(Journal::Lost);
        node.kill();
        disk.again().await;
        assert_ne!(fs::read(&canary).unwrap_or_default(), b"never synced", "{when}: this was no power failure");
        lost += files.saturating_sub(whole_files(&node.root().join("layers")));
        boot.next();
        let cri = node.start().await;
        sound(&when).await;
        for id in kept {
            assert!(cri.image(&id).await.is_some(), "{when}: {id} was synced and is gone");
        }
        node.kill();
    }
    assert!(lost > 0, "no layer lost anything: these tests prove nothing");
    let cri = node.start().await;
    for (name, id) in &images {
        assert_eq!(&cri.pull(name).await.unwrap(), id);
    }
    let whole = sound("afterwards").await;
    assert!(whole.contains("4 images, 5 layers"), "{whole}");
    clear_up(node, &cri, &mut disk).await;
}

/// The disk fails at any moment of parallel pulls, under a container that runs. The daemon says so and goes on, what runs
/// can be ended, and when the disk is there again in the same boot all is well, although not all had been synced.
async fn a_disk_that_fails_is_told_and_survived(node: &mut Node) {
    let registry = node.registry().await;
    registry.push("busybox:1", &Image::busybox());
    let images = push(&registry);
    let mut disk = Disk::new(&node.folder().join("disk"), &node.root(), DISK_BYTES, &[]);
    let seed = seed();
    let mut chance = Chance(seed);
    for round in 0..cuts() {
        let when = format!("failure {round}, seed {seed}");
        let cri = node.start().await;
        cri.pull(BUSYBOX).await.unwrap();
        let (pod, container) = cri.run_in_pod(&host_pod("lives"), &shell("main", "sleep 1000")).await.unwrap();
        if round % 3 == 0 {
            // Complete, and not synced.
            cri.pull(&images[0].0).await.unwrap();
        }
        let pulls = images.iter().map(|(name, _)| {
            let (cri, name) = (cri.clone(), name.clone());
            tokio::spawn(async move { (cri.pull(&name).await, name) })
        });
        let pulls: Vec<_> = pulls.collect();
        tokio::time::sleep(Duration::from_micros(chance.next(200_000).into())).await;
        disk.cut(if round % 2 == 0 { Journal::Lost } else { Journal::Written });
        for pull in pulls {
            let (outcome, name) = within("a pull", LIMIT, pull).await.unwrap();
            if let Err(error) = outcome {
                broken(&error, &when, &format!("cannot pull {name}"));
            }
        }
        registry.push("late:1", &Image::new(vec![Layer::gzip(Tree::default().file("late", 0o644, &when))]));
        broken(&cri.pull("registry.test/late:1").await.unwrap_err(), &when, "cannot pull registry.test/late:1");
        // Reads are answered, and what runs can be ended.
        assert_eq!((cri.pods().await.len(), cri.containers().await.len()), (1, 1), "{when}");
        assert!(cri.image(BUSYBOX).await.is_some(), "{when}");
        assert_eq!(cri.status(&container).await.unwrap().state(), ContainerState::ContainerRunning, "{when}");
        // Its end, too, is written to a disk that is not there.
        let _ = cri.stop(&container, 0).await;
        let _ = cri.stop_pod(&pod).await;
        let _ = cri.remove_pod(&pod).await;
        node.stop().await;
        disk.again().await;
        let cri = node.start().await;
        sound(&when).await;
        for pod in cri.pods().await {
            cri.remove_pod(&pod.id).await.unwrap();
        }
        for (name, id) in &images {
            assert_eq!(&cri.pull(name).await.unwrap(), id, "{when}");
        }
        sound(&when).await;
        for image in cri.all_images().await {
            cri.remove_image(&image.id).await.unwrap();
        }
        emptied(node).await;
        node.kill();
    }
    let cri = node.start().await;
    clear_up(node, &cri, &mut disk).await;
}

/// An error of a disk that is gone names what was tried, the cause, and what to do.
fn broken(error: &Status, when: &str, step: &str) {
    assert_eq!(error.code(), Code::Internal, "{when}: {error}");
    let message = error.message();
    assert!(message.contains(step), "{when}: no {step:?} in {error}");
    // Which of the two depends on how far the kernel has come in shutting the filesystem down.
    let told = message.contains("Input/output error") && message.contains("the disk fails");
    assert!(told || message.contains("Read-only file system"), "{when}: no cause in {error}");
}

/// The disk is full at any point of a pull: the error says so, nothing of the pull stays, and with room it succeeds. The
/// same goes for containers, and for a disk that has room and no inodes.
async fn a_full_disk_is_told_at_every_step(node: &mut Node) {
    node.settings.raw("image.min_free_bytes", "0");
    let registry = node.registry().await;
    let layer = |number: usize| {
        let files = (0..40).fold(Tree::default(), |tree, file| {
            tree.file(&format!("d{number}/{}/f{file}", file % 5), 0o644, format!("{number} {file} ").repeat(2000))
        });
        if number == 0 { Layer::zstd(files) } else { Layer::gzip(files) }
    };
    let image = Image::new([Image::busybox().layers, (0..2).map(layer).collect()].concat());
    registry.push("full:1", &image);
    let name = "registry.test/full:1";
    let mut disk = Disk::new(&node.folder().join("disk"), &node.root(), 64 << 20, &["-N", "4096"]);
    let cri = node.start().await;
    let (mut room, mut failures) = (0, 0);
    loop {
        disk.leave(room);
        match cri.pull(name).await {
            Ok(id) => break assert_eq!(id, image.id()),
            Err(error) => full(&error, &format!("{room} bytes")),
        }
        failures += 1;
        emptied(node).await;
        // Small steps where there are many small files, large ones where there is one large file.
        room = if room < 128 << 10 { room + (8 << 10) } else { room + room / 3 };
        assert!(room < 32 << 20, "a pull of some megabytes does not fit");
    }
    assert!(failures > 15, "only {failures} pulls failed");
    sound("after pulls that failed").await;

    // Containers have files, too.
    disk.leave(0);
    let config = host_pod("full");
    let mut container = shell("main", "sleep 1000");
    container.image = Some(image_spec(name));
    let error = cri.run_in_pod(&config, &container).await.unwrap_err();
    full(&error, "a container");
    disk.free();
    for pod in cri.pods().await {
        cri.remove_pod(&pod.id).await.unwrap();
    }
    let (pod, _) = cri.run_in_pod(&config, &container).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();

    cri.remove_image(&image.id()).await.unwrap();
    emptied(node).await;
    let many = (0..6000).fold(Tree::default(), |tree, file| tree.file(&format!("f{file}"), 0o644, ""));
    registry.push("many:1", &Image::new(vec![Layer::gzip(many)]));
    full(&cri.pull("registry.test/many:1").await.unwrap_err(), "no inodes");
    emptied(node).await;
    assert_eq!(cri.pull(name).await.unwrap(), image.id());
    sound("afterwards").await;
    clear_up(node, &cri, &mut disk).await;
}

/// When room gets short, what nothing refers to goes at once, and images with names stay.
async fn a_disk_short_of_room_is_cleared(node: &mut Node) {
    node.settings.raw("image.timeouts.stall_seconds", "3");
    node.settings.raw("image.timeouts.attempts", "1");
    let registry = node.registry().await;
    let noise = |file: u32| (0..400_000_u32).map(move |byte| (byte.wrapping_mul(2_654_435_761 + 2 * file) >> 24) as u8);
    let layer =
        |file: u32| Layer::plain(Tree::default().file(&format!("f{file}"), 0o644, noise(file).collect::<Vec<u8>>()));
    let image = Image::new(vec![layer(0), layer(1)]);
    registry.push("whole:1", &Image::new(vec![layer(2)]));
    registry.push("part:1", &image);
    registry.fail(&image.layers[1].digest, Fault::Stalled);
    let mut disk = Disk::new(&node.folder().join("disk"), &node.root(), 64 << 20, &[]);
    let cri = node.start().await;
    cri.pull("registry.test/whole:1").await.unwrap();
    let layers = node.root().join("layers");
    let count = || fs::read_dir(&layers).unwrap().count();
    let named = count();
    cri.pull("registry.test/part:1").await.unwrap_err();
    // The next try would want it.
    assert_eq!(count(), named + 1, "what came of an image that failed");
    // Of 64 MiB a twentieth stays free; garbage goes when there is less than twice that.
    disk.leave(5 << 20);
    eventually("what failed pulls have left to go", LIMIT, async || (count() == named).then_some(())).await;
    assert_eq!(cri.all_images().await.len(), 1);
    disk.free();
    sound("with little room").await;
    clear_up(node, &cri, &mut disk).await;
}

fn full(error: &Status, when: &str) {
    assert_eq!(error.code(), Code::ResourceExhausted, "{when}: {error}");
    assert!(error.message().contains("No space left"), "{when}: {error}");
}

/// Waits until nothing of any image is left.
async fn emptied(node: &Node) {
    eventually("an empty store", LIMIT, async || node.left_in_root().is_empty().then_some(())).await;
}

/// Counts what is left on the disk while it is there.
async fn clear_up(node: &mut Node, cri: &Cri, disk: &mut Disk) {
    node.clear(cri).await;
    let left = node.left_in_root();
    assert!(left.is_empty(), "left behind: {left:?}");
    node.stop().await;
    disk.unmount().await;
}

//! SIGKILL at each step of a pull, of a removal and of a sync to the disk, one after the other, and at any moment of parallel pulls.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use tripod_tests::{Image, Layer, Node, Stepper, Steps, Tree, tests};

use crate::disk_faults::{Chance, push, seed, sound};

tests![
    each_step_of_a_pull_can_be_the_last,
    each_step_of_a_removal_can_be_the_last,
    each_step_of_a_sync_can_be_the_last,
    kills_during_pulls_break_nothing,
];

/// How many steps lie between two kills, where not each is to be the last (1).
const STRIDE: &str = "TRIPOD_TESTS_STRIDE";

/// `tripod image …` on the store in `root`, without a daemon.
fn command(folder: &Path, root: &Path, words: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env::var_os("TRIPOD_BIN").expect("the program under test"));
    command.arg("image").args(words).arg("--config").arg(folder.join("config.toml")).arg("--root").arg(root);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs one to its end; what it says.
fn said(folder: &Path, root: &Path, words: &[&str]) -> String {
    let output = command(folder, root, words).output().expect("run tripod");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{words:?}: {text}");
    text
}

fn until(stepper: &Stepper, folder: &Path, root: &Path, words: &[&str], last: usize) -> Steps {
    let mut command = command(folder, root, words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    stepper.run_until(command, last)
}

/// Which steps of so many are the last in turn: each seventh in CI, not the same each time, or as many as are asked for.
fn lasts(steps: usize) -> impl Iterator<Item = usize> {
    let stride = env::var(STRIDE).ok().map_or(7, |stride| stride.parse().expect("a number of steps"));
    // On its node each test has the same process ID.
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_micros() as usize % stride;
    (first..steps).step_by(stride)
}

/// A registry with two images that share a layer, and the settings to reach it; the daemon is not needed.
async fn furnish(node: &mut Node) -> [String; 2] {
    let registry = node.registry().await;
    let common = Layer::gzip(Tree::default().dir("etc/", 0o755).file("etc/common", 0o644, "common ".repeat(3000)));
    let names = ["one", "two"].map(|name| {
        let own = Layer::zstd(Tree::default().file(name, 0o755, name.repeat(20_000)).symlink("link", name));
        registry.push(&format!("{name}:1"), &Image::new(vec![common.clone(), own]));
        format!("registry.test/{name}:1")
    });
    node.start().await;
    node.stop().await;
    names
}

const WHOLE: &str = "all is as it should be";

/// The store is whole after a pull that was killed at any step, and the pull succeeds when it is tried again.
async fn each_step_of_a_pull_can_be_the_last(node: &mut Node) {
    let [one, two] = furnish(node).await;
    let (folder, root) = (node.folder().to_owned(), node.root());
    let work = move || {
        let stepper = Stepper::new();
        said(&folder, &root, &["pull", &one]);
        let all = until(&stepper, &folder, &root, &["pull", &two], usize::MAX);
        assert!(all.status.success() && all.taken > 20, "{all:?}");
        for last in lasts(all.taken) {
            said(&folder, &root, &["prune", "--all"]);
            said(&folder, &root, &["pull", &one]);
            let killed = until(&stepper, &folder, &root, &["pull", &two], last);
            assert!(!killed.status.success() || killed.taken <= last, "{last}: {killed:?}");
            let found = said(&folder, &root, &["check"]);
            assert!(found.contains(WHOLE), "killed at step {last} of {}: {found}", all.taken);
            said(&folder, &root, &["pull", &two]);
            let found = said(&folder, &root, &["check"]);
            assert!(found.contains("2 images, 3 layers") && found.contains(WHOLE), "after step {last}: {found}");
        }
        said(&folder, &root, &["prune", "--all"]);
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// So it is when a removal is killed, and what was to go goes with the next.
async fn each_step_of_a_removal_can_be_the_last(node: &mut Node) {
    let [one, two] = furnish(node).await;
    let (folder, root) = (node.folder().to_owned(), node.root());
    let work = move || {
        let stepper = Stepper::new();
        for name in [&one, &two] {
            said(&folder, &root, &["pull", name]);
        }
        said(&folder, &root, &["rm", &one]);
        let all = until(&stepper, &folder, &root, &["prune", "--all"], usize::MAX);
        assert!(all.status.success() && all.taken > 10, "{all:?}");
        for last in lasts(all.taken) {
            for name in [&one, &two] {
                said(&folder, &root, &["pull", name]);
            }
            said(&folder, &root, &["rm", &one]);
            until(&stepper, &folder, &root, &["prune", "--all"], last);
            let found = said(&folder, &root, &["check"]);
            assert!(found.contains(WHOLE), "killed at step {last} of {}: {found}", all.taken);
            said(&folder, &root, &["prune", "--all"]);
            let found = said(&folder, &root, &["check"]);
            assert!(found.contains("0 images, 0 layers"), "after step {last}: {found}");
            let layers =
                root.join("layers").read_dir().unwrap().count() + root.join("staging").read_dir().unwrap().count();
            assert_eq!(layers, 0, "after step {last}: something stays");
        }
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// The records of all layers.
fn records(root: &Path) -> Vec<(PathBuf, Value)> {
    let record = |layer: fs::DirEntry| {
        let path = layer.path().join("layer.json");
        let record = serde_json::from_slice(&fs::read(&path).expect("the record of a layer")).expect("a whole record");
        (path, record)
    };
    fs::read_dir(root.join("layers")).expect("the layers").flatten().map(record).collect()
}

/// Says whether a layer waits for its sync: the boot under which it was unpacked.
const MARK: &str = "unsynced_since_boot";

fn waiting(root: &Path) -> usize {
    records(root).iter().filter(|(_, record)| record.get(MARK).is_some()).count()
}

/// Leaves all layers as a pull does that has just ended.
fn unsync(root: &Path) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot ID");
    for (path, mut record) in records(root) {
        record[MARK] = boot.trim().into();
        fs::write(path, record.to_string()).expect("write the record of a layer");
    }
}

/// `tripod image load` until it has synced all layers that it found, as every process that has the store open does after
/// some seconds, or is killed at this step.
fn until_synced(stepper: &Stepper, folder: &Path, root: &Path, last: usize) -> Steps {
    let (input, open) = std::io::pipe().expect("a pipe");
    let mut command = command(folder, root, &["load", "--quiet"]);
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
    let (over, store) = (Arc::new(AtomicBool::new(false)), root.to_owned());
    let ended = Arc::clone(&over);
    let waits = thread::spawn(move || {
        let limit = Instant::now() + Duration::from_secs(120);
        while !ended.load(Ordering::SeqCst) && waiting(&store) > 0 && Instant::now() < limit {
            thread::sleep(Duration::from_millis(20));
        }
        // There is no archive.
        drop(open);
    });
    let steps = stepper.run_until(command, last);
    over.store(true, Ordering::SeqCst);
    waits.join().expect("whoever keeps it open");
    steps
}

/// A layer is never said to be on disk before it is, and a sync that was killed is made up for.
async fn each_step_of_a_sync_can_be_the_last(node: &mut Node) {
    let names = furnish(node).await;
    let (folder, root) = (node.folder().to_owned(), node.root());
    let work = move || {
        let stepper = Stepper::new();
        for name in &names {
            said(&folder, &root, &["pull", name]);
        }
        unsync(&root);
        assert_eq!(waiting(&root), 3);
        let all = until_synced(&stepper, &folder, &root, usize::MAX);
        assert_eq!(waiting(&root), 0, "{all:?}");
        let sync = |steps: &Steps| steps.calls.iter().position(|call| call == "syncfs");
        let first = sync(&all).expect("a sync");
        // The sync, and what is written for each layer.
        for last in first..=first + 3 {
            unsync(&root);
            let killed = until_synced(&stepper, &folder, &root, last);
            let begun = sync(&killed).map_or(0, |sync| killed.calls.len() - sync);
            // The last was not made.
            let said_so = begun.saturating_sub(2);
            assert!(waiting(&root) + said_so >= 3, "killed at step {last}: {killed:?}");
            let found = said(&folder, &root, &["check"]);
            assert!(found.contains("2 images, 3 layers") && found.contains(WHOLE), "after step {last}: {found}");
        }
        unsync(&root);
        until_synced(&stepper, &folder, &root, usize::MAX);
        assert_eq!(waiting(&root), 0);
        said(&folder, &root, &["prune", "--all"]);
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// How often the daemon is killed; 200 are many minutes.
const KILLS: &str = "TRIPOD_TESTS_KILLS";

/// SIGKILL at any moment of parallel pulls: what the next daemon has is whole, and what it lacks can be pulled.
async fn kills_during_pulls_break_nothing(node: &mut Node) {
    let kills: u32 = env::var(KILLS).ok().map_or(8, |kills| kills.parse().expect("a number of kills"));
    let registry = node.registry().await;
    let images = push(&registry);
    let (seed, mut complete) = (seed(), 0);
    let mut chance = Chance(seed);
    for round in 0..kills {
        let cri = node.start().await;
        sound(&format!("kill {round}, seed {seed}")).await;
        complete += cri.all_images().await.len();
        // Removals beside the pulls, so that there is always something to fetch and something to collect.
        for (name, id) in &images {
            if chance.next(2) == 1 {
                cri.remove_image(id).await.unwrap();
            }
            let (cri, name) = (cri.clone(), name.clone());
            // It ends with the daemon at the latest, in an error.
            tokio::spawn(async move { cri.pull(&name).await });
        }
        tokio::time::sleep(Duration::from_micros(chance.next(250_000).into())).await;
        node.kill();
    }
    let cri = node.start().await;
    for (name, id) in &images {
        assert_eq!(&cri.pull(name).await.unwrap(), id);
    }
    let whole = sound("after all kills").await;
    assert!(whole.contains("4 images, 5 layers"), "{whole}");
    assert!(kills < 20 || complete > 0, "no pull was ever complete: the kills come too early to prove anything");
}

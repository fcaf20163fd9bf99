//! SIGKILL at each step of a pull and of a removal to the disk, one after the other, and at any moment of parallel pulls.

use std::{
    env,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tripod_tests::{Image, Layer, Node, Stepper, Steps, Tree, tests};

use crate::disk_faults::{Chance, push, seed, sound};

tests![each_step_of_a_pull_can_be_the_last, each_step_of_a_removal_can_be_the_last, kills_during_pulls_break_nothing,];

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

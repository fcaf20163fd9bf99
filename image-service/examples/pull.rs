//! Measures a pull: how long it takes, how much memory at most, what is on disk afterwards.
//!
//! `cargo run --release -p tripod-image-service --example pull -- --synthetic FOLDER` makes an image of 6 layers
//! (about 260 MB of gzip, 750 MB of tar, 16,000 files), serves it with Debian's docker-registry from FOLDER, where it
//! is found again the next time, and pulls it three times into stores below FOLDER that are removed afterwards. With
//! `--pull ROOT REFERENCE` it pulls one image into a store that stays.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]
#![forbid(unsafe_code)]

#[path = "../tests/images/fixture.rs"]
mod fixture;
#[path = "../tests/images/registry.rs"]
mod registry;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use fixture::{Image, Tar};
use registry::Registry;
use tripod_image_service::{Config, ImageService, PullRequest};

const LAYERS: usize = 6;
const FILES: usize = 16_334;
const BYTES: usize = 751 << 20;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--synthetic", folder] => synthetic(Path::new(folder)).await,
        ["--pull", root, reference] => pull(Path::new(root), reference).await,
        _ => {
            eprintln!("usage: pull --synthetic FOLDER | pull --pull ROOT REFERENCE");
            std::process::exit(2);
        }
    }
}

async fn synthetic(folder: &Path) {
    let data = folder.join("registry");
    let made = folder.join("made");
    let registry = Registry::start_in(Some(&data)).await;
    if !made.exists() {
        eprintln!("making the image: this takes a minute");
        let layers = (0..LAYERS).map(|seed| std::thread::spawn(move || layer(seed)));
        let layers = layers.collect::<Vec<_>>().into_iter().map(|layer| layer.join().unwrap()).collect();
        Image::new(layers).push(&registry.address, "bench/six", "latest").await;
        std::fs::write(&made, "").unwrap();
    }
    for run in 1..=3 {
        let root = folder.join(format!("store-{run}"));
        // A process of its own, so that its peak of memory is the pull's.
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--pull", root.to_str().unwrap(), &format!("{}/bench/six:latest", registry.address)])
            .status();
        assert!(status.unwrap().success());
    }
    // Only now: ext4 takes long over new inodes while many were freed within the last seconds.
    for run in 1..=3 {
        std::fs::remove_dir_all(folder.join(format!("store-{run}"))).unwrap();
    }
}

async fn pull(root: &Path, reference: &str) {
    let before = memory();
    let images = ImageService::open(Config { root: root.to_owned(), ..Config::default() }).await.unwrap();
    let begin = Instant::now();
    let request = PullRequest { reference: reference.to_owned(), ..PullRequest::default() };
    let image = match images.pull(request).await {
        Ok(image) => image,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    let elapsed = begin.elapsed();
    let (user, system) = cpu();
    let peak = memory();
    // The sync in the background begins 3 seconds after the pull.
    let mut synced = Duration::ZERO;
    while unsynced(root) && synced < Duration::from_secs(300) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        synced = begin.elapsed();
    }
    let info = images.fs_info().await.unwrap();
    println!(
        "pull {:.2} s ({user:.2} s of CPU in user mode, {system:.2} s in the kernel), on disk for good after {:.2} s, peak memory {} kB (before {} kB), image {} MB, on disk {} MB in {} inodes",
        elapsed.as_secs_f64(),
        synced.as_secs_f64(),
        peak,
        before,
        image.size >> 20,
        info.images.used_bytes >> 20,
        info.images.used_inodes,
    );
}

fn unsynced(root: &Path) -> bool {
    let layers = std::fs::read_dir(root.join("layers")).unwrap();
    let mut records = layers.map(|layer| std::fs::read_to_string(layer.unwrap().path().join("layer.json")).unwrap());
    records.any(|record| record.contains("unsynced_since_boot"))
}

/// CPU time of this process, which tells more than the clock on a machine that is busy with other things.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let seconds = |index: usize| fields[index].parse::<f64>().unwrap() / 100.0;
    (seconds(11), seconds(12))
}

/// Peak of resident memory, in kB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A layer of files full of words, which gzip makes about a third of.
fn layer(seed: usize) -> fixture::Layer {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<String> = (0..3000)
        .map(|_| (0..2 + random() % 8).map(|_| char::from(b'a' + (random() % 26) as u8)).chain([' ']).collect())
        .collect();
    let (files, bytes) = (FILES / LAYERS, BYTES / LAYERS);
    let mut tar = Tar::new();
    for file in 0..files {
        if file % 20 == 0 {
            tar = tar.dir(&format!("usr/share/l{seed}/d{}/", file / 20));
        }
        // Many small files and a few large ones.
        let scale = [1, 2, 4, 8, 16, 113][(random() % 6) as usize];
        let size = bytes / files * scale / 24;
        let mut text = String::with_capacity(size + 10);
        while text.len() < size {
            text.push_str(&words[(random() % words.len() as u64) as usize]);
        }
        tar = tar.file(&format!("usr/share/l{seed}/d{}/f{file}", file / 20), &text);
    }
    tar.gzip()
}

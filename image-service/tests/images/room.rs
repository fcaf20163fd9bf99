//! Disks that are nearly full, and pulls at the same time.

use std::path::{Path, PathBuf};

use rustix::{
    fs::statvfs,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use tripod_engine::{Error, Kind};
use tripod_image_service::Image as Stored;

use super::{
    archives::{blob, load, tar},
    fake::Fake,
    fixture::{Compression, Image, Layer, Tar},
    root::Root,
    store::settle,
};

const SIZE: usize = 32 << 20;
const MIB: usize = 1 << 20;

/// A store on a small disk of its own. A twentieth of it stays free.
struct Small {
    // The disk goes first: the folder that it stands on cannot be removed before.
    _disk: Disk,
    root: Root,
}

/// Goes with this value, whoever still looks at it.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

impl Small {
    async fn new() -> Self {
        let mut disk = None;
        let root = Root::with(|config| {
            std::fs::create_dir_all(&config.root).unwrap();
            let size = std::ffi::CString::new(format!("size={SIZE}")).unwrap();
            mount("tmpfs", &config.root, "tmpfs", MountFlags::empty(), size.as_c_str()).unwrap();
            disk = Some(Disk(config.root.clone()));
        })
        .await;
        Self { _disk: disk.unwrap(), root }
    }

    fn free(&self) -> usize {
        free(&self.root.path())
    }

    /// Nothing is left but what was there before.
    async fn assert_free(&self, before: usize) {
        // The database takes some blocks for itself.
        settle(async || self.free() + MIB / 2 >= before).await;
        self.root.assert_no_leftovers();
    }
}

fn free(path: &Path) -> usize {
    let stat = statvfs(path).unwrap();
    usize::try_from(stat.f_bavail * stat.f_frsize).unwrap()
}

/// Bytes that no compression makes fewer.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let (mut state, mut noise) = (seed | 1, vec![0; count]);
    for word in noise.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    noise
}

fn layer(path: &str, content: &[u8], compression: Compression) -> Layer {
    Layer::new(&Tar::new().entry(tar::EntryType::Regular, path, "", content, 0o644, (0, 0)).finish(), compression)
}

fn hard(seed: u64, mib: usize) -> Image {
    Image::new(vec![layer("noise", &noise(seed, mib * MIB), Compression::Gzip)])
}

/// Few bytes that become many.
fn easy(word: &str, mib: usize) -> Image {
    let content = word.repeat(mib * MIB / word.len());
    Image::new(vec![layer("text", content.as_bytes(), Compression::Zstd)])
}

fn assert_full(result: Result<impl std::fmt::Debug, Error>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    let message = error.to_string();
    for words in ["No space left", "image.min_free_bytes", "tripod image prune --all"] {
        assert!(message.contains(words), "{words:?} is not in {message}");
    }
    message
}

async fn at_once(small: &Small, images: [&Image; 2]) -> [Result<Stored, Error>; 2] {
    let fakes = [Fake::with(images[0], |_| None).await, Fake::with(images[1], |_| None).await];
    let (one, other) = (fakes[0].name(), fakes[1].name());
    let (one, other) = tokio::join!(small.root.pull(&one), small.root.pull(&other));
    [one, other]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_at_the_same_time_count_together() {
    let small = Small::new().await;
    let before = small.free();
    for pulled in at_once(&small, [&hard(1, 9), &hard(2, 9)]).await {
        let id = pulled.unwrap().id;
        small.root.images.remove(&id).await.unwrap().unwrap();
    }
    small.assert_free(before).await;
    // Each would fit.
    let (good, bad): (Vec<_>, Vec<_>) =
        at_once(&small, [&hard(3, 18), &hard(4, 18)]).await.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 1), "{good:?} {bad:?}");
    let message = assert_full(bad.into_iter().next().unwrap());
    assert!(message.contains("at least"), "it was not refused before: {message}");
    assert_eq!(small.root.images.list().len(), 1);
    small.root.assert_no_leftovers();
    small.root.images.remove(&good.into_iter().next().unwrap().unwrap().id).await.unwrap().unwrap();
    small.assert_free(before).await;
    let fake = Fake::with(&hard(4, 18), |_| None).await;
    small.root.pull(&fake.name()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_turns_out_too_large_leaves_the_disk_some_room() {
    let small = Small::new().await;
    let before = small.free();
    let fake = Fake::with(&easy("all the same ", 40), |_| None).await;
    let message = assert_full(small.root.pull(&fake.name()).await);
    assert!(message.contains("cannot unpack the layer"), "{message}");
    assert!(small.root.images.list().is_empty());
    small.assert_free(before).await;
    // Of two that fit one by one, those that fail leave nothing.
    let images = [easy("one and the same ", 18), easy("another ", 18)];
    let mut pulled = 0;
    for result in at_once(&small, [&images[0], &images[1]]).await {
        match result {
            Ok(image) => {
                pulled += 1;
                small.root.images.remove(&image.id).await.unwrap().unwrap();
            }
            failed => drop(assert_full(failed)),
        }
    }
    assert!(pulled < 2, "both have more than the disk");
    small.assert_free(before).await;
    for image in &images {
        let fake = Fake::with(image, |_| None).await;
        let id = small.root.pull(&fake.name()).await.unwrap().id;
        small.root.images.remove(&id).await.unwrap().unwrap();
        small.assert_free(before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_here_need_no_room() {
    let small = Small::new().await;
    let (common, own) = (noise(5, 20 * MIB), noise(6, MIB));
    let image = |name: &str| {
        let file =
            |tar: Tar, path: &str, bytes: &[u8]| tar.entry(tar::EntryType::Regular, path, "", bytes, 0o644, (0, 0));
        let tar = file(file(Tar::new().dir("lib/"), "lib/common", &common), name, &own);
        Image::new(vec![tar.gzip()])
    };
    for name in ["one", "another"] {
        let fake = Fake::with(&image(name), |_| None).await;
        small.root.pull(&fake.name()).await.unwrap();
    }
    // This one has nothing of theirs, which turns out when it is here; that of the next is certain.
    for (size, words) in [(24, "have to stay free"), (60, "at least")] {
        let fake = Fake::with(&hard(7, size), |_| None).await;
        let message = assert_full(small.root.pull(&fake.name()).await);
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_ask_for_room_too() {
    let small = Small::new().await;
    let before = small.free();
    for (compression, words) in [(Compression::Gzip, "at least"), (Compression::Plain, "have to stay free")] {
        let layer = layer("noise", &noise(8, 36 * MIB), compression);
        let archive = tar(&[(blob(&layer.digest), layer.blob)]);
        let message = assert_full(load(&small.root, &archive, None, None).await);
        assert!(message.contains(words), "{message}");
        small.assert_free(before).await;
    }
}

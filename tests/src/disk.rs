//! A disk of a test's own, which can lose its power, fail, and be full.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs, syncfs},
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
};
use tripod_sys::filesystem;

use crate::eventually;

pub use tripod_sys::filesystem::Journal;

/// File on the disk that takes its room.
const FILLER: &str = "filler";
const BLOCK: u64 = 4096;
const LIMIT: Duration = Duration::from_secs(60);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How a disk is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// With a journal, and nothing left to be made later.
    Ext4,
    /// With files that share blocks.
    Xfs,
    /// As it comes.
    Btrfs,
}

impl Format {
    /// The program, its options, and the Debian package that has it.
    fn maker(self) -> (&'static str, &'static [&'static str], &'static str) {
        match self {
            // Nothing is left to a thread of the kernel that would write while the test looks.
            Self::Ext4 => {
                ("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"], "e2fsprogs")
            }
            Self::Xfs => ("mkfs.xfs", &["-q", "-m", "reflink=1"], "xfsprogs"),
            Self::Btrfs => ("mkfs.btrfs", &["-q"], "btrfs-progs"),
        }
    }
}

/// A filesystem in a file. It is mounted only on the test's node.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes an ext4 of this many bytes in the file `image` and mounts it on the folder `point`. `options` are mkfs.ext4's.
    pub fn new(image: &Path, point: &Path, bytes: u64, options: &[&str]) -> Self {
        Self::of(Format::Ext4, image, point, bytes, options)
    }

    /// The same with another format. An XFS takes 300 MiB or more.
    pub fn of(format: Format, image: &Path, point: &Path, bytes: u64, options: &[&str]) -> Self {
        File::create_new(image).expect("a disk's file").set_len(bytes).expect("a sparse file");
        fs::create_dir_all(point).expect("a place for the disk");
        let (program, usual, package) = format.maker();
        let made = Command::new(program).args(usual).args(options).arg(image).output();
        let made = made.unwrap_or_else(|error| panic!("{program} (Debian: {package}): {error}"));
        assert!(made.status.success(), "{program}: {}", String::from_utf8_lossy(&made.stderr));
        let mut disk = Self { image: image.to_owned(), point: point.to_owned(), mounted: false };
        disk.mount();
        disk
    }

    fn mount(&mut self) {
        // A free loop device, which goes with the mount.
        let done = Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.point).status();
        assert!(done.expect("mount (Debian: mount)").success(), "the disk cannot be mounted");
        self.mounted = true;
    }

    /// Unmounts it. Who has just ended may still be letting go of it.
    pub async fn unmount(&mut self) {
        eventually("the end of all use of the disk", LIMIT, async || {
            match unmount(&self.point, UnmountFlags::empty()) {
                Err(Errno::BUSY) => None,
                done => {
                    done.expect("unmount the disk");
                    Some(())
                }
            }
        })
        .await;
        self.mounted = false;
        // A container's mount may have kept the filesystem a little longer.
        eventually("the end of the disk's loop device", LIMIT, async || (!self.is_attached()).then_some(())).await;
    }

    fn is_attached(&self) -> bool {
        let devices = fs::read_dir("/sys/block").expect("sysfs").flatten();
        let mut files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
        files.any(|file| Path::new(file.trim_end()) == self.image)
    }

    /// Bytes of it that are in use.
    pub fn used(&self) -> u64 {
        self.sync();
        let stat = statvfs(&self.point).expect("look at the disk");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// Ends the filesystem, which is no Btrfs, in the midst of its work.
    pub fn cut(&self, journal: Journal) {
        let root = File::open(&self.point).expect("open the disk");
        filesystem::shut_down(root.as_fd(), journal).expect("shut the filesystem down");
    }

    /// Mounts it again, which replays its journal.
    pub async fn again(&mut self) {
        self.unmount().await;
        self.mount();
    }

    /// Writes all that waits.
    pub fn sync(&self) {
        syncfs(File::open(&self.point).expect("open the disk")).expect("sync the disk");
    }

    /// Leaves room for about this many bytes, or for fewer.
    pub fn leave(&self, bytes: u64) {
        let path = self.point.join(FILLER);
        let _ = fs::remove_file(&path);
        // What was deleted is free when its transaction is committed.
        self.sync();
        let filler = File::create(&path).expect("the filler");
        let mut taken = 0;
        // The filesystem needs some of the room for itself, so the last of it goes in ever smaller pieces.
        let mut piece = 4 << 20;
        while piece >= BLOCK {
            let stat = statvfs(&self.point).expect("look at the disk");
            let free = stat.f_bavail * stat.f_frsize;
            if free < bytes + piece || fallocate(&filler, FallocateFlags::empty(), taken, piece).is_err() {
                piece /= 2;
                continue;
            }
            taken += piece;
        }
        self.sync();
    }

    /// Gives all room back.
    pub fn free(&self) {
        fs::remove_file(self.point.join(FILLER)).expect("remove the filler");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = unmount(&self.point, UnmountFlags::DETACH);
        }
    }
}

/// The boot ID that programs on this node see, until it is dropped.
#[derive(Debug)]
pub struct Boot {
    file: PathBuf,
    number: u32,
}

impl Boot {
    /// A boot that is not the machine's, told by a file in `folder`.
    pub fn new(folder: &Path) -> Self {
        let file = folder.join("boot-id");
        let boot = Self { file, number: 0 };
        boot.write();
        mount_bind(&boot.file, BOOT_ID).expect("hide the boot ID");
        boot
    }

    /// From now on it is another one.
    pub fn next(&mut self) {
        self.number += 1;
        self.write();
    }

    fn write(&self) {
        fs::write(&self.file, format!("00000000-0000-4000-8000-{:012}\n", self.number)).expect("a boot ID");
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        let _ = unmount(BOOT_ID, UnmountFlags::DETACH);
    }
}

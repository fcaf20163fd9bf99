//! The mounts that every container has, and the paths that none is to see.

use std::{fs, path::PathBuf};

use tripod_shim_protocol::{FsOption, Mount, MountFlags, MountSource};

/// No set-user-ID, no devices, no programs: for what only holds the kernel's own files.
const KERNEL: MountFlags = MountFlags {
    read_only: false,
    recursive_read_only: false,
    nosuid: true,
    nodev: true,
    noexec: true,
    over_link: false,
};

/// In the order in which they are mounted. `privileged` containers may write to /sys and to their cgroups.
pub fn list(privileged: bool) -> Vec<Mount> {
    let system = MountFlags { read_only: !privileged, ..KERNEL };
    let devices = MountFlags { nodev: false, noexec: false, ..KERNEL };
    // Pseudo-terminals are devices too.
    let terminals = MountFlags { nodev: false, ..KERNEL };
    let pts = &[("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    vec![
        filesystem("/proc", "proc", &[], KERNEL),
        filesystem("/dev", "tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))], devices),
        filesystem("/dev/pts", "devpts", pts, terminals),
        filesystem("/dev/mqueue", "mqueue", &[], KERNEL),
        mount("/dev/shm", MountSource::PodShm, KERNEL),
        // The kernel shows the network of whoever mounts it: that of the pod, its own or the host's.
        filesystem("/sys", "sysfs", &[], system),
        mount("/sys/fs/cgroup", MountSource::Cgroups, system),
    ]
}

/// What of the kernel's files tells too much of the host, or lets too much be done, in all runtimes of today.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

/// Those of them that this host has, with the throttling counters of each processor.
pub fn masked() -> Vec<PathBuf> {
    let counters = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let counters = counters.map(|entry| entry.path().join("thermal_throttle"));
    let mut found: Vec<PathBuf> = MASKED.into_iter().map(PathBuf::from).chain(counters).collect();
    found.retain(|path| path.exists());
    found.sort();
    found
}

fn filesystem(target: &str, fstype: &str, options: &[(&str, Option<&str>)], flags: MountFlags) -> Mount {
    let option =
        |&(key, value): &(&str, Option<&str>)| FsOption { key: key.to_owned(), value: value.map(str::to_owned) };
    let options = options.iter().map(option).collect();
    mount(target, MountSource::Filesystem { fstype: fstype.to_owned(), options }, flags)
}

fn mount(target: &str, source: MountSource, flags: MountFlags) -> Mount {
    Mount { target: target.into(), source, flags, propagation: None, map_ids: false }
}

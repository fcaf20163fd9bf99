//! The mounts that every container has.

use tripod_shim_protocol::{FsOption, Mount, MountFlags, MountSource};

/// No set-user-ID, no devices, no programs: for what only holds the kernel's own files.
const KERNEL: MountFlags =
    MountFlags { read_only: false, recursive_read_only: false, nosuid: true, nodev: true, noexec: true };

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

fn filesystem(target: &str, fstype: &str, options: &[(&str, Option<&str>)], flags: MountFlags) -> Mount {
    let option =
        |&(key, value): &(&str, Option<&str>)| FsOption { key: key.to_owned(), value: value.map(str::to_owned) };
    let options = options.iter().map(option).collect();
    mount(target, MountSource::Filesystem { fstype: fstype.to_owned(), options }, flags)
}

fn mount(target: &str, source: MountSource, flags: MountFlags) -> Mount {
    Mount { target: target.into(), source, flags, propagation: None }
}

//! What cgroups the host has: v1 hierarchies, the unified (v2) tree, or both beside each other.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt, fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::CgroupError;

/// Controllers that tripod uses, with the names of v1. On v2 `cpuacct`, `devices` and `freezer` are no controllers:
/// every cgroup can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Counts CPU time.
    Cpuacct,
    /// Which CPUs and memory nodes.
    Cpuset,
    /// Memory.
    Memory,
    /// Device access.
    Devices,
    /// Stops and thaws.
    Freezer,
    /// Block input and output.
    Blkio,
    /// Number of processes.
    Pids,
    /// Huge pages.
    Hugetlb,
}

impl Controller {
    const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Devices,
        Self::Freezer,
        Self::Blkio,
        Self::Pids,
        Self::Hugetlb,
    ];

    fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Blkio => "blkio",
            Self::Pids => "pids",
            Self::Hugetlb => "hugetlb",
        }
    }

    /// The name in `cgroup.controllers`; `None` for what is no controller on v2.
    pub fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Cpuacct | Self::Devices | Self::Freezer => None,
            Self::Blkio => Some("io"),
            other => Some(other.v1_name()),
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.v1_name())
    }
}

/// The two generations of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for a controller or a few.
    V1,
    /// One for all.
    V2,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its generation.
    pub version: Version,
    /// What it controls.
    pub controllers: BTreeSet<Controller>,
}

/// All hierarchies of the host that are of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// v1 hierarchies in the order of their mounts, then the unified tree if it has what they lack; or it alone.
    pub trees: Vec<Tree>,
    /// Sizes of huge pages, as `2MB`.
    pub hugepages: BTreeSet<String>,
}

impl Host {
    /// Reads it from the kernel.
    pub fn discover() -> Result<Self, CgroupError> {
        let path = "/proc/self/mountinfo";
        Self::of(&fs::read_to_string(path).map_err(|e| CgroupError::io("reading", path, e))?)
    }

    /// Reads the rest for these mounts.
    pub fn of(mountinfo: &str) -> Result<Self, CgroupError> {
        let controllers = |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let trees = trees(mountinfo, controllers);
        if trees.is_empty() {
            return Err(CgroupError::NoCgroups);
        }
        Ok(Self { trees, hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")) })
    }

    /// Everything is in the unified tree.
    pub fn unified(&self) -> bool {
        matches!(self.trees.as_slice(), [tree] if tree.version == Version::V2)
    }

    /// The tree that has a controller.
    pub fn tree(&self, controller: Controller) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.controllers.contains(&controller))
    }

    /// The tree that a directory lies in.
    pub fn tree_of(&self, dir: &Path) -> Option<&Tree> {
        let holds = |tree: &&Tree| dir.starts_with(&tree.mount);
        self.trees.iter().filter(holds).max_by_key(|tree| tree.mount.components().count())
    }

    /// A container's directory in the tree that has `controller`, among all its directories.
    pub fn dir<'a>(&self, dirs: &'a [PathBuf], controller: Controller) -> Option<(&'a Path, Version)> {
        let tree = self.tree(controller)?;
        let inside = |dir: &&PathBuf| self.tree_of(dir).is_some_and(|found| found.mount == tree.mount);
        dirs.iter().find(inside).map(|dir| (dir.as_path(), tree.version))
    }
}

/// The trees in a mountinfo; `controllers` reads those of a unified tree.
fn trees(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Vec<Tree> {
    let mut trees: Vec<Tree> = Vec::new();
    let mut unified: Option<Tree> = None;
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let Some(mount) = mount.split(' ').nth(4).map(unescape) else { continue };
        let mut fields = filesystem.split(' ');
        let (kind, options) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        match kind {
            "cgroup" => {
                let known = |name| Controller::ALL.into_iter().find(|controller| controller.v1_name() == name);
                let controllers: BTreeSet<_> = options.split(',').filter_map(known).collect();
                // A second mount of the same hierarchy is no other one; a named one controls nothing.
                let seen = trees.iter().any(|tree| tree.controllers.intersection(&controllers).next().is_some());
                if !controllers.is_empty() && !seen {
                    trees.push(Tree { mount, version: Version::V1, controllers });
                }
            }
            "cgroup2" if unified.is_none() => {
                let listed = controllers(&mount);
                let has = |name| listed.split_whitespace().any(|listed| listed == name);
                let controllers = Controller::ALL.into_iter().filter(|c| c.v2_name().is_some_and(has)).collect();
                unified = Some(Tree { mount, version: Version::V2, controllers });
            }
            _ => {}
        }
    }
    if let Some(mut tree) = unified {
        if trees.is_empty() {
            let always = [Controller::Cpuacct, Controller::Devices, Controller::Freezer];
            tree.controllers.extend(always);
            return vec![tree];
        }
        tree.controllers.retain(|controller| !trees.iter().any(|tree| tree.controllers.contains(controller)));
        if !tree.controllers.is_empty() {
            trees.push(tree);
        }
    }
    trees
}

/// Paths in mountinfo have octal escapes for white space and backslashes.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = rest.get(1..4).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Sizes of huge pages in the spelling of the controller, from the names in sysfs (`hugepages-2048kB`).
fn hugepages(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let kilobytes = entries.filter_map(|entry| {
        entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
    });
    kilobytes.map(size_name).collect()
}

fn size_name(kilobytes: u64) -> String {
    const MEGA: u64 = 1 << 10;
    const GIGA: u64 = 1 << 20;
    match kilobytes {
        GIGA.. => format!("{}GB", kilobytes / GIGA),
        MEGA.. => format!("{}MB", kilobytes / MEGA),
        _ => format!("{kilobytes}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/mem\\040ory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 / /elsewhere rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_hosts_use_v1_and_what_v2_has_beside_it() {
        let host = Host { trees: trees(LEGACY, |_| "memory hugetlb\n".to_owned()), hugepages: BTreeSet::new() };
        let found: Vec<_> = host
            .trees
            .iter()
            .map(|tree| (tree.mount.to_str().unwrap(), tree.version, tree.controllers.len()))
            .collect();
        assert_eq!(
            found,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", Version::V1, 2),
                ("/sys/fs/cgroup/mem ory", Version::V1, 1),
                ("/sys/fs/cgroup/unified", Version::V2, 1)
            ]
        );
        assert!(!host.unified());
        assert_eq!(host.tree(Controller::Hugetlb).unwrap().version, Version::V2);
        assert_eq!(host.tree(Controller::Memory).unwrap().version, Version::V1);
        assert_eq!(host.tree(Controller::Pids), None);
        let dirs = ["/sys/fs/cgroup/cpu,cpuacct/t/c".into(), "/sys/fs/cgroup/mem ory/t/c".into()];
        let memory = host.dir(&dirs, Controller::Memory);
        assert_eq!(memory, Some((Path::new("/sys/fs/cgroup/mem ory/t/c"), Version::V1)));
        assert_eq!(host.dir(&dirs, Controller::Hugetlb), None);
        assert_eq!(trees(LEGACY, |_| String::new()).len(), 2, "an empty v2 tree is of no use");
    }

    #[test]
    fn unified_hosts() {
        let line = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let host = Host { trees: trees(line, |_| "cpuset cpu io memory pids".to_owned()), hugepages: BTreeSet::new() };
        assert!(host.unified());
        assert!(host.tree(Controller::Blkio).is_some() && host.tree(Controller::Freezer).is_some());
        assert!(host.tree(Controller::Hugetlb).is_none());
    }

    #[test]
    fn sizes_of_huge_pages() {
        assert_eq!([64, 2048, 1048576].map(size_name), ["64KB", "2MB", "1GB"]);
    }
}

//! The cgroup hierarchies of the machine, and a group of a test's own in each.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Options of every mount, which do not name a controller.
const PLAIN_OPTIONS: [&str; 6] = ["rw", "relatime", "nosuid", "nodev", "noexec", "xattr"];

/// How long a group may stay empty before its maker moves in.
const FRESH: Duration = Duration::from_secs(60);

/// A mounted hierarchy.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub point: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub kind: String,
    /// Controllers of version 1, as mount options.
    pub options: String,
}

/// All hierarchies that are mounted here.
pub fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read /proc/self/mounts");
    let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    // Of mounts that lie over each other the last one is seen.
    let points: BTreeMap<PathBuf, Hierarchy> = lines
        .filter(|fields| ["cgroup", "cgroup2"].contains(&fields[2]))
        .map(|fields| Hierarchy {
            point: fields[1].into(),
            kind: fields[2].to_owned(),
            options: if fields[2] == "cgroup" { controllers(fields[3]) } else { String::new() },
        })
        .map(|hierarchy| (hierarchy.point.clone(), hierarchy))
        .collect();
    points.into_values().collect()
}

fn controllers(options: &str) -> String {
    let names = options.split(',').filter(|name| !PLAIN_OPTIONS.contains(name) && !name.starts_with("release_agent="));
    names.collect::<Vec<_>>().join(",")
}

/// Makes a group of this name in each hierarchy.
pub fn make(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.point.join(name);
        fs::create_dir(&group)?;
        // A new cpuset of version 1 is empty, and an empty one takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.kind == "cgroup" && group.join(file).exists() {
                fs::write(group.join(file), fs::read_to_string(hierarchy.point.join(file))?)?;
            }
        }
    }
    Ok(())
}

/// Moves this process into the groups of this name.
pub(crate) fn join(name: &str) -> io::Result<()> {
    for hierarchy in hierarchies() {
        fs::write(hierarchy.point.join(name).join("cgroup.procs"), std::process::id().to_string())?;
    }
    Ok(())
}

/// Removes the groups of this name and all below them; their last processes may still be ending.
pub fn remove(name: &str) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs(60);
    for hierarchy in hierarchies() {
        let group = hierarchy.point.join(name);
        while let Err(error) = remove_tree(&group) {
            if Instant::now() > until {
                return Err(format!("the cgroup {} cannot be removed: {error}", group.display()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    for child in children(group) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The groups right below a group.
pub(crate) fn children(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Names `PREFIX-PID-…` in all hierarchies whose process is gone: a killed run left them. A copy that runs in another
/// PID namespace counts its processes otherwise, so a group that has some is alive whatever its name says.
pub(crate) fn abandoned(prefix: &str) -> Vec<String> {
    let groups: Vec<PathBuf> = hierarchies().into_iter().flat_map(|hierarchy| children(&hierarchy.point)).collect();
    let mut alive: BTreeMap<String, bool> = BTreeMap::new();
    for group in groups {
        if let Some(name) = group.file_name().and_then(|name| name.to_str()).filter(|name| is_abandoned(name, prefix)) {
            *alive.entry(name.to_owned()).or_default() |= has_processes(&group) || is_fresh(&group);
        }
    }
    alive.into_iter().filter(|(_, alive)| !alive).map(|(name, _)| name).collect()
}

/// Version 1 does not list processes of other PID namespaces; its pids controller counts them, with those below.
fn has_processes(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|processes| !processes.is_empty())
        || fs::read_to_string(group.join("pids.current")).is_ok_and(|count| count.trim() != "0")
        || children(group).iter().any(|child| has_processes(child))
}

/// Whether any hierarchy has a group of this name.
pub(crate) fn exists(name: &str) -> bool {
    hierarchies().iter().any(|hierarchy| hierarchy.point.join(name).exists())
}

/// Whether somebody may have made it just now, to move into it.
pub(crate) fn is_fresh(folder: &Path) -> bool {
    let age = fs::metadata(folder).and_then(|meta| meta.modified()).map(|time| time.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age < FRESH)
}

/// Whether a name is `PREFIX-PID-…` of a process that is gone.
pub(crate) fn is_abandoned(name: &str, prefix: &str) -> bool {
    let pid = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split('-').next());
    pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
}

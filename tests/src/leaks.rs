//! What is on the node, and what of it was not there before.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{cgroup, patient};

/// How long late clean-up may take: reaping, and network interfaces that go with their namespaces. The kernel takes those
/// away one after the other for the whole machine.
const LATE: Duration = Duration::from_secs(60);

/// Everything that could be left behind, one line a thing.
#[derive(Debug, Clone)]
pub struct Leaks {
    before: BTreeSet<String>,
    folders: Vec<PathBuf>,
}

impl Leaks {
    /// What is there now; `folders` are looked through for files.
    pub fn snapshot(folders: &[PathBuf]) -> Self {
        Self { before: look(folders), folders: folders.to_vec() }
    }

    /// What is there now and was not before, after late clean-up has had its time. `allowed` are things that stay.
    pub async fn left(&self, allowed: &[&str]) -> Vec<String> {
        let until = Instant::now() + patient(LATE);
        loop {
            let now = look(&self.folders);
            let new = now.difference(&self.before).filter(|line| !allowed.iter().any(|allowed| fits(line, allowed)));
            let left: Vec<String> = new.cloned().collect();
            if left.is_empty() || Instant::now() > until {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A `*` at the end stands for any rest.
fn fits(line: &str, allowed: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(begin) => line.starts_with(begin),
        None => line == allowed,
    }
}

fn look(folders: &[PathBuf]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(processes());
    found.extend(mounts());
    found.extend(names(Path::new("/run/netns")).map(|name| format!("netns {name}")));
    found.extend(names(Path::new("/sys/class/net")).map(|name| format!("link {name}")));
    for hierarchy in cgroup::hierarchies() {
        groups(&hierarchy.point, &mut found);
    }
    for folder in folders {
        files(folder, &mut found);
    }
    found.extend(rules());
    found
}

/// Zombies too: whoever leaves one has forgotten a child.
fn processes() -> impl Iterator<Item = String> {
    let own = std::process::id().to_string();
    names(Path::new("/proc")).filter_map(move |pid| {
        if pid == own || pid.parse::<u32>().is_err() {
            return None;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, state) =
            (stat.get(stat.find('(')?..=stat.rfind(')')?)?, stat.get(stat.rfind(')')? + 2..)?.chars().next()?);
        // What it does at this moment is no difference.
        Some(format!("process {pid} {name}{}", if state == 'Z' { " Z" } else { "" }))
    })
}

fn mounts() -> impl Iterator<Item = String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lines: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            Some(format!("mount {} (number {})", fields.get(4)?, fields.first()?))
        })
        .collect();
    lines.into_iter()
}

fn groups(group: &Path, found: &mut BTreeSet<String>) {
    for child in cgroup::children(group) {
        found.insert(format!("cgroup {}", child.display()));
        groups(&child, found);
    }
}

fn files(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.insert(format!("file {}", entry.path().display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), found);
        }
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

/// The packet filter: tables, and what is in their maps. Which chains a table has is its owner's business.
fn rules() -> Vec<String> {
    let output = Command::new("nft").args(["-s", "list", "ruleset"]).output();
    let output = output.expect("nft: run scripts/setup, or install Debian's nftables");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = Vec::new();
    let mut table = "";
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("table ") {
            table = line.trim_end_matches(" {");
            found.push(format!("nft {table}"));
        } else if let Some(elements) = line.trim().strip_prefix("elements = ") {
            let mut elements = elements.to_owned();
            while !elements.ends_with('}')
                && let Some(more) = lines.next()
            {
                elements.push_str(more.trim());
            }
            found.push(format!("nft {table} elements {elements}"));
        }
    }
    found
}

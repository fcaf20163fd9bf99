//! Processes of the node, as /proc has them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{Node, eventually, patient};

/// Time in which what is under way comes to its end.
const SETTLED: Duration = Duration::from_secs(60);

/// PIDs of processes, zombies not among them, that have all of these words on their command line.
pub fn processes(words: &[&str]) -> Vec<u32> {
    all()
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let found: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
            words.iter().all(|word| found.contains(&word.as_bytes()))
        })
        .collect()
}

/// How many zombies there are.
pub fn zombies() -> usize {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    entries
        .filter(|entry| fs::read_to_string(entry.path().join("stat")).is_ok_and(|stat| stat.contains(") Z ")))
        .count()
}

/// What processes hold: how many descriptors of each lead to a file of this name. All sockets have one name, and all
/// pipes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    descriptors: BTreeMap<(u32, String), usize>,
}

impl Holdings {
    /// What they hold now. A process that is gone holds nothing.
    pub fn of(pids: &[u32]) -> Self {
        let mut descriptors = BTreeMap::new();
        for &pid in pids {
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                if let Ok(target) = fs::read_link(entry.path()) {
                    *descriptors.entry((pid, kind(&target))).or_default() += 1;
                }
            }
        }
        Self { descriptors }
    }

    /// What there is more of than before.
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let more = self.descriptors.iter().filter_map(|(key, &now)| {
            let then = before.descriptors.get(key).copied().unwrap_or(0);
            (now > then).then(|| format!("process {} has {now} of {}, {then} before", key.0, key.1))
        });
        more.collect()
    }
}

impl Node {
    /// What the daemon and all shims hold, once nothing is under way any more.
    pub async fn holdings(&self) -> Holdings {
        let mut last = (Holdings::default(), Instant::now());
        let still = eventually("that nothing is under way", SETTLED, async || {
            let now = self.held();
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() > Duration::from_millis(300)).then(|| last.0.clone())
        });
        still.await
    }

    /// Waits until no more is held than before, and no zombie is left.
    pub async fn settled(&self, before: &Holdings) {
        let until = Instant::now() + patient(SETTLED);
        loop {
            let (beyond, zombies) = (self.held().beyond(before), zombies());
            if beyond.is_empty() && zombies == 0 {
                return;
            }
            assert!(Instant::now() < until, "{zombies} zombies are left; {}", beyond.join("; "));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn held(&self) -> Holdings {
        let mut pids = shims();
        pids.push(self.daemon().pid());
        Holdings::of(&pids)
    }
}

fn shims() -> Vec<u32> {
    let is_shim = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "tripod-shim\n");
    all().filter(is_shim).collect()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
}

/// How many threads a process has.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// `socket:[123]` is a socket.
fn kind(target: &Path) -> String {
    let text = target.to_string_lossy();
    text.split(":[").next().unwrap_or_default().to_owned()
}

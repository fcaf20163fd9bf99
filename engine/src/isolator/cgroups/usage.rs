//! What a container uses, read from its cgroups. A file that is not there leaves its numbers unknown.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    file::{children, keyed, number},
    host::{Controller, Host, Version},
    kill,
};
use crate::usage::{HugepageUsage, IoUsage, Pressure, PressureLine, Usage};

/// v1 shows "no limit" as the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// Adds all that can be read.
pub fn read(host: &Host, dirs: &[PathBuf], usage: &mut Usage) {
    if let Some((dir, version)) = host.dir(dirs, Controller::Cpuacct) {
        match version {
            Version::V1 => cpuacct(dir, usage),
            Version::V2 => cpu_v2(dir, usage),
        }
    }
    if let Some((dir, Version::V1)) = host.dir(dirs, Controller::Cpu) {
        throttling(&text(dir, "cpu.stat"), "throttled_time", 1, usage);
    }
    match host.dir(dirs, Controller::Memory) {
        Some((dir, Version::V1)) => memory_v1(dir, usage),
        Some((dir, Version::V2)) => memory_v2(dir, usage),
        None => {}
    }
    if let Some((dir, _)) = host.dir(dirs, Controller::Pids) {
        usage.pids.threads = number(&dir.join("pids.current"));
        usage.pids.limit = number(&dir.join("pids.max"));
    }
    if let Some(dir) = dirs.first() {
        usage.pids.processes = kill::processes(dir).ok().map(|pids| pids.len() as u64);
    }
    match host.dir(dirs, Controller::Blkio) {
        Some((dir, Version::V1)) => usage.io = blkio(dir),
        Some((dir, Version::V2)) => usage.io = io_stat(&text(dir, "io.stat")),
        None => {}
    }
    if host.unified()
        && let Some(dir) = dirs.first()
    {
        usage.io_pressure = pressure(&text(dir, "io.pressure"));
    }
    if let Some((dir, version)) = host.dir(dirs, Controller::Hugetlb) {
        usage.hugepages = host.hugepages.iter().filter_map(|size| hugepages(dir, version, size)).collect();
    }
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

fn cpuacct(dir: &Path, usage: &mut Usage) {
    usage.cpu.total_ns = number(&dir.join("cpuacct.usage"));
    usage.cpu.user_ns = number(&dir.join("cpuacct.usage_user"));
    usage.cpu.system_ns = number(&dir.join("cpuacct.usage_sys"));
}

fn cpu_v2(dir: &Path, usage: &mut Usage) {
    let stat = text(dir, "cpu.stat");
    let nanoseconds = |key| keyed(&stat, key).map(|us| us * 1000);
    usage.cpu.total_ns = nanoseconds("usage_usec");
    usage.cpu.user_ns = nanoseconds("user_usec");
    usage.cpu.system_ns = nanoseconds("system_usec");
    throttling(&stat, "throttled_usec", 1000, usage);
    usage.cpu.pressure = pressure(&text(dir, "cpu.pressure"));
}

fn throttling(stat: &str, time: &str, unit_ns: u64, usage: &mut Usage) {
    usage.cpu.periods = keyed(stat, "nr_periods");
    usage.cpu.throttled_periods = keyed(stat, "nr_throttled");
    usage.cpu.throttled_ns = keyed(stat, time).map(|time| time * unit_ns);
}

fn memory_v1(dir: &Path, usage: &mut Usage) {
    let stat = text(dir, "memory.stat");
    let limit = |file: &str| number(&dir.join(file)).filter(|limit| *limit < NO_LIMIT);
    let memory = &mut usage.memory;
    memory.usage = number(&dir.join("memory.usage_in_bytes"));
    memory.working_set = less(memory.usage, keyed(&stat, "total_inactive_file"));
    memory.rss = keyed(&stat, "total_rss");
    memory.cache = keyed(&stat, "total_cache");
    memory.mapped_file = keyed(&stat, "total_mapped_file");
    memory.max_usage = number(&dir.join("memory.max_usage_in_bytes"));
    memory.limit = limit("memory.limit_in_bytes");
    memory.page_faults = keyed(&stat, "total_pgfault");
    memory.major_page_faults = keyed(&stat, "total_pgmajfault");
    memory.failcnt = number(&dir.join("memory.failcnt"));
    memory.oom_kills = oom_kills(dir, Version::V1);
    memory.kernel = number(&dir.join("memory.kmem.usage_in_bytes"));
    let both = number(&dir.join("memory.memsw.usage_in_bytes"));
    usage.swap.usage = both.and_then(|both| memory.usage.map(|memory| both.saturating_sub(memory)));
    usage.swap.limit = less(limit("memory.memsw.limit_in_bytes"), memory.limit);
}

fn memory_v2(dir: &Path, usage: &mut Usage) {
    let (stat, events) = (text(dir, "memory.stat"), text(dir, "memory.events"));
    let memory = &mut usage.memory;
    memory.usage = number(&dir.join("memory.current"));
    memory.working_set = less(memory.usage, keyed(&stat, "inactive_file"));
    memory.rss = keyed(&stat, "anon");
    memory.cache = keyed(&stat, "file");
    memory.mapped_file = keyed(&stat, "file_mapped");
    memory.max_usage = number(&dir.join("memory.peak"));
    memory.limit = number(&dir.join("memory.max"));
    memory.page_faults = keyed(&stat, "pgfault");
    memory.major_page_faults = keyed(&stat, "pgmajfault");
    memory.failcnt = keyed(&events, "max");
    memory.oom_kills = keyed(&events, "oom_kill");
    memory.kernel = keyed(&stat, "kernel");
    memory.pressure = pressure(&text(dir, "memory.pressure"));
    usage.swap.usage = number(&dir.join("memory.swap.current"));
    usage.swap.limit = number(&dir.join("memory.swap.max"));
}

/// How often a process of a container was killed for lack of memory, its own limit's or another's. The counter is in the
/// cgroup, so nothing is lost that happens while nobody looks: right after the start, or while the daemon is away.
pub fn oom_kills(dir: &Path, version: Version) -> Option<u64> {
    match version {
        // This counts only where the process was; a container may have made cgroups of its own below.
        Version::V1 => {
            let own = keyed(&text(dir, "memory.oom_control"), "oom_kill")?;
            let below = children(dir).unwrap_or_default();
            Some(below.iter().filter_map(|dir| oom_kills(dir, version)).sum::<u64>() + own)
        }
        Version::V2 => keyed(&text(dir, "memory.events"), "oom_kill"),
    }
}

/// How often a process or thread of a container was refused for a limit, its own or another's.
pub fn failed_forks(dir: &Path) -> Option<u64> {
    keyed(&text(dir, "pids.events"), "max")
}

fn less(whole: Option<u64>, part: Option<u64>) -> Option<u64> {
    Some(whole?.saturating_sub(part?))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same for `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| {
        let fields = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let field = |key: &str| fields.split_whitespace().find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        let average = |key| field(key).and_then(|value| value.parse().ok()).unwrap_or_default();
        let total = field("total").and_then(|value| value.parse().ok())?;
        Some(PressureLine { avg10: average("avg10"), avg60: average("avg60"), avg300: average("avg300"), total })
    };
    // Not every file has `full`.
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

/// v1: `8:0 Read 4096`, in one file for bytes and one for operations.
fn blkio(dir: &Path) -> Vec<IoUsage> {
    let mut devices = BTreeMap::new();
    let mut add = |file: &str, set: fn(&mut IoUsage, &str, u64)| {
        for line in text(dir, file).lines() {
            let mut fields = line.split(' ');
            let (Some(device), Some(kind), Some(value)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let (Some(device), Ok(value)) = (self::device(device), value.parse()) else { continue };
            set(devices.entry(device).or_insert(IoUsage { device, ..IoUsage::default() }), kind, value);
        }
    };
    add("blkio.throttle.io_service_bytes_recursive", |usage, kind, bytes| match kind {
        "Read" => usage.read_bytes = bytes,
        "Write" => usage.write_bytes = bytes,
        _ => {}
    });
    add("blkio.throttle.io_serviced_recursive", |usage, kind, count| match kind {
        "Read" => usage.reads = count,
        "Write" => usage.writes = count,
        _ => {}
    });
    devices.into_values().collect()
}

/// v2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn io_stat(text: &str) -> Vec<IoUsage> {
    let line = |line: &str| {
        let mut fields = line.split(' ');
        let mut usage = IoUsage { device: device(fields.next()?)?, ..IoUsage::default() };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = value.parse().unwrap_or_default();
            match key {
                "rbytes" => usage.read_bytes = value,
                "wbytes" => usage.write_bytes = value,
                "rios" => usage.reads = value,
                "wios" => usage.writes = value,
                _ => {}
            }
        }
        Some(usage)
    };
    text.lines().filter_map(line).collect()
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn hugepages(dir: &Path, version: Version, size: &str) -> Option<HugepageUsage> {
    let file = |name: &str| number(&dir.join(format!("hugetlb.{size}.{name}")));
    let size = size.to_owned();
    Some(match version {
        Version::V1 => HugepageUsage {
            usage: file("usage_in_bytes")?,
            max_usage: file("max_usage_in_bytes").unwrap_or_default(),
            failcnt: file("failcnt").unwrap_or_default(),
            size,
        },
        Version::V2 => HugepageUsage {
            usage: file("current")?,
            max_usage: 0,
            failcnt: keyed(&text(dir, &format!("hugetlb.{size}.events")), "max").unwrap_or_default(),
            size,
        },
    })
}

#[cfg(test)]
mod tests;

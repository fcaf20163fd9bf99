//! A runtime's processes: the memory and the time of the processors that they take, as the kernel counts them.

use std::{fs, io, ops::Sub, path::Path, time::Instant};

use serde_json::{Value, json};

/// Ticks of `/proc/PID/stat` and `/proc/stat` in a second; Linux shows the same number on every architecture.
const TICKS: f64 = 100.0;

/// Where a runtime's processes are found.
#[derive(Debug, Clone, clap::Args)]
pub struct Processes {
    /// PID of the runtime's daemon.
    #[arg(long)]
    daemon: u32,
    /// Name of the processes that it has for each pod.
    #[arg(long)]
    shim: String,
}

/// Seconds of processor time, of users and kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// Of the daemon itself.
    pub daemon: f64,
    /// Of the shims themselves.
    pub shims: f64,
    /// Of what all of these started and waited for.
    pub children: f64,
    /// Of this program, which stands for kubelet.
    pub client: f64,
    /// Of the whole machine.
    pub machine: f64,
}

/// Reads [`Cpu`] from a moment on.
#[derive(Debug)]
pub struct Meter<'a> {
    processes: &'a Processes,
    began: Instant,
    before: Cpu,
}

// === impl Processes ===

impl Processes {
    /// Proportional set size of the daemon in kB.
    pub fn daemon_kb(&self) -> io::Result<u64> {
        pss_kb(self.daemon)
    }

    /// How many shims there are, and their proportional set sizes together in kB.
    pub fn shims_kb(&self) -> io::Result<(usize, u64)> {
        let shims = named(&self.shim)?;
        let total = shims.iter().filter_map(|pid| pss_kb(*pid).ok()).sum();
        Ok((shims.len(), total))
    }

    /// Processor time from now on.
    pub fn meter(&self) -> io::Result<Meter<'_>> {
        Ok(Meter { processes: self, before: self.cpu()?, began: Instant::now() })
    }

    /// Processor time so far.
    fn cpu(&self) -> io::Result<Cpu> {
        let (daemon, mut children) = ticks(&Path::new("/proc").join(self.daemon.to_string()))?;
        let mut shims = 0.0;
        for pid in named(&self.shim)? {
            let process = Path::new("/proc").join(pid.to_string());
            shims += running(&process)?;
            children += ticks(&process)?.1;
        }
        let (client, _) = ticks(Path::new("/proc/self"))?;
        Ok(Cpu { daemon, shims, children, client, machine: machine()? })
    }
}

// === impl Cpu ===

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu {
            daemon: self.daemon - before.daemon,
            shims: self.shims - before.shims,
            children: self.children - before.children,
            client: self.client - before.client,
            machine: self.machine - before.machine,
        }
    }
}

impl Cpu {
    /// All of it in per cent of one processor, or anything else that a `factor` makes of seconds.
    pub fn scaled(self, factor: f64) -> Value {
        let scaled = |seconds: f64| (seconds * factor * 1000.0).round() / 1000.0;
        json!({
            "daemon": scaled(self.daemon), "shims": scaled(self.shims), "children": scaled(self.children),
            "client": scaled(self.client), "machine": scaled(self.machine),
        })
    }
}

// === impl Meter ===

impl Meter<'_> {
    /// Seconds since the beginning, and the processor time in them.
    pub fn read(&self) -> io::Result<(f64, Cpu)> {
        Ok((self.began.elapsed().as_secs_f64(), self.processes.cpu()? - self.before))
    }
}

/// Seconds of the threads that a process has, to the nanosecond: a shim may need less than a tick. Time of threads that
/// have ended is missing; shims, unlike daemons, keep those that they have.
fn running(process: &Path) -> io::Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Seconds of a process itself, and of the children that it has waited for.
fn ticks(process: &Path) -> io::Result<(f64, f64)> {
    let text = fs::read_to_string(process.join("stat"))?;
    let short = || io::Error::other(format!("{}/stat is shorter than expected", process.display()));
    // The name in parentheses may hold anything, parentheses too.
    let (_, rest) = text.rsplit_once(") ").ok_or_else(short)?;
    let mut times = rest.split(' ').skip(11).map(|field| field.parse::<f64>().unwrap_or_default());
    let mut next = || times.next().ok_or_else(short);
    let (user, system, children_user, children_system) = (next()?, next()?, next()?, next()?);
    Ok(((user + system) / TICKS, (children_user + children_system) / TICKS))
}

/// Seconds for which the processors were not idle since boot. Their idle time is measured; their other times are
/// sampled at ticks, which short-lived processes evade.
fn machine() -> io::Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let processors = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    let idle: f64 = text
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(4).take(2).filter_map(|field| field.parse::<f64>().ok()).sum())
        .unwrap_or_default();
    let uptime = fs::read_to_string("/proc/uptime")?;
    let up: f64 = uptime.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or_default();
    Ok(up * processors as f64 - idle / TICKS)
}

/// Proportional set size in kB.
fn pss_kb(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| io::Error::other(format!("no Pss in smaps_rollup of process {pid}")))
}

/// Processes by the name that the kernel shows (at most 15 bytes of it).
fn named(name: &str) -> io::Result<Vec<u32>> {
    let name = &name[..name.len().min(15)];
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_named = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    Ok(pids.filter(is_named).collect())
}

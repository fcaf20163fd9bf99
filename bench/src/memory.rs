//! Memory of a runtime's processes, as the kernel shares it out (PSS).

use std::{fs, io, time::Duration};

use serde_json::{Value, json};

use crate::target::Target;

/// Time for processes to settle after the last pod has started.
const SETTLE: Duration = Duration::from_secs(5);

/// Memory of the daemon, and of the processes that it has for each pod, while `count` pods run.
pub async fn of_pods(
    target: &Target,
    count: usize,
    daemon: u32,
    shim: &str,
) -> Result<Value, Box<dyn std::error::Error>> {
    target.pull().await?;
    let idle = pss_kb(daemon)?;
    let mut pods = Vec::new();
    for _ in 0..count {
        pods.push(target.start_pod(true).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let loaded = pss_kb(daemon)?;
    let shims = named(shim)?;
    let total: u64 = shims.iter().filter_map(|pid| pss_kb(*pid).ok()).sum();
    for pod in &pods {
        target.remove_pod(pod).await?;
    }
    Ok(json!({
        "pods": count,
        "daemon_idle_kb": idle,
        "daemon_kb": loaded,
        "shims": shims.len(),
        "shims_kb": total,
        "shims_kb_per_pod": total as f64 / count as f64,
    }))
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

//! Memory of a runtime's processes, as the kernel shares it out (PSS).

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Failure, processes::Processes, target::Target};

/// Time for processes to settle after the last pod has started.
const SETTLE: Duration = Duration::from_secs(5);

/// Memory of the daemon, and of the processes that it has for each pod, while `count` pods run.
pub async fn of_pods(target: &Target, processes: &Processes, count: usize) -> Result<Value, Failure> {
    target.pull().await?;
    let idle = processes.daemon_kb()?;
    let pods = target.start_pods(count).await?;
    tokio::time::sleep(SETTLE).await;
    let loaded = processes.daemon_kb()?;
    let (shims, total) = processes.shims_kb()?;
    target.remove_pods(&pods).await?;
    Ok(json!({
        "pods": count,
        "daemon_idle_kb": idle,
        "daemon_kb": loaded,
        "shims": shims,
        "shims_kb": total,
        "shims_kb_per_pod": total as f64 / count as f64,
    }))
}

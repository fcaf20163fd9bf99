//! Exec probes: kubelet runs a command in each container, again and again.

use std::time::Duration;

use futures::future;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::{Failure, exec::exec_sync, processes::Processes, samples::Samples, target::Target};

/// Time for processes to settle after the last pod has started.
const SETTLE: Duration = Duration::from_secs(3);

/// A probe that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// What the processors do while `rate` probes a second come to `count` pods, beyond what they do without.
pub async fn load(
    target: &Target,
    processes: &Processes,
    rate: f64,
    count: usize,
    seconds: u64,
) -> Result<Value, Failure> {
    target.pull().await?;
    let pods = target.start_pods(count).await?;
    let time = Duration::from_secs(seconds);
    sleep(SETTLE).await;
    let meter = processes.meter()?;
    sleep(time).await;
    let (idle_time, idle) = meter.read()?;

    let period = Duration::from_secs_f64(count as f64 / rate);
    let meter = processes.meter()?;
    let began = Instant::now();
    let probes = pods.iter().enumerate().map(|(number, pod)| {
        let first = began + period.mul_f64(number as f64 / count as f64);
        probe(target, &pod.container, first, period, began + time)
    });
    let results = future::join_all(probes).await;
    let (busy_time, busy) = meter.read()?;
    target.remove_pods(&pods).await?;

    let mut samples = Samples::default();
    let (mut done, mut failed) = (0, 0);
    for (times, failures) in results {
        done += times.len();
        failed += failures;
        samples.extend(times);
    }
    let runtime = busy.daemon + busy.shims + busy.children;
    let machine = busy.machine / busy_time - idle.machine / idle_time;
    Ok(json!({
        "pods": count, "seconds": busy_time, "asked_per_second": rate,
        "done_per_second": done as f64 / busy_time, "failed": failed, "time": samples.summary(),
        "runtime_percent": runtime / busy_time * 100.0,
        "machine_percent": machine * 100.0 - busy.client / busy_time * 100.0,
        "runtime_ms_per_probe": runtime / done as f64 * 1000.0,
        "percent": busy.scaled(100.0 / busy_time), "idle_percent": idle.scaled(100.0 / idle_time),
    }))
}

/// Probes one container; as with kubelet, one that takes longer than the period makes the next one fall out.
async fn probe(
    target: &Target,
    container: &str,
    first: Instant,
    period: Duration,
    end: Instant,
) -> (Vec<Duration>, usize) {
    let mut clock = interval_at(first, period);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut times, mut failed) = (Vec::new(), 0);
    loop {
        clock.tick().await;
        if Instant::now() >= end {
            return (times, failed);
        }
        match timeout(LIMIT, exec_sync(target, container)).await {
            Ok(Ok(time)) => times.push(time),
            _ => failed += 1,
        }
    }
}

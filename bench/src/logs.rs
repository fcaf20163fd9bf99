//! Logs of containers that print as fast as they can.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tripod_cri_api::v1;

use crate::{
    Failure,
    processes::Processes,
    reader::{Text, read},
    target::{LOG, Pod, Target, Workload},
};

/// Bytes that a line of text becomes longer by in the log, about.
const PREFIX: usize = 42;

/// Time for processes to settle after the last pod has started.
const SETTLE: Duration = Duration::from_secs(1);

/// How long the printing and the writing may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Where containers see the folder in which the file appears that lets them begin.
const GATE: &str = "/gate";

/// Between two looks at whether the containers have ended.
const LOOK: Duration = Duration::from_millis(50);

/// Between two looks at the memory of the runtime, which take time themselves.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(500);

/// What containers print.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    /// Bytes of a line with its end.
    length: usize,
    /// Each line with a write of its own.
    single: bool,
    containers: usize,
}

/// How much is printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Limits {
    /// For how long containers print at most.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Length of all logs together at most, about.
    #[arg(long, default_value_t = 1 << 29)]
    bytes: u64,
    /// How many print when many do.
    #[arg(long, default_value_t = 50)]
    containers: usize,
}

/// One container after the other prints lines of each kind, then many at once. Their logs are in `folder` for a while.
pub async fn throughput(
    target: &Target,
    processes: &Processes,
    limits: Limits,
    folder: &Path,
) -> Result<Value, Failure> {
    target.pull().await?;
    let one = |name, length, single| Kind { name, length, single, containers: 1 };
    let kinds = [
        one("lines of 100 bytes", 100, false),
        one("lines of 100 bytes, a write for each", 100, true),
        one("lines of 2 bytes", 2, false),
        one("lines of 64 KiB", 64 << 10, false),
        Kind { name: "lines of 100 bytes, many containers", length: 100, single: false, containers: limits.containers },
    ];
    let mut result = Map::new();
    for kind in kinds {
        result.insert(kind.name.to_owned(), measure(target, processes, limits, folder, kind).await?);
    }
    Ok(result.into())
}

async fn measure(
    target: &Target,
    processes: &Processes,
    limits: Limits,
    folder: &Path,
    kind: Kind,
) -> Result<Value, Failure> {
    let gate = folder.join("gate");
    fs::create_dir_all(&gate)?;
    let lines = limits.bytes / (kind.length + PREFIX) as u64 / kind.containers as u64;
    let mut workload = workload(kind, limits.seconds, lines, &gate)?;
    let mut pods = Vec::new();
    let mut logs = Vec::new();
    for number in 0..kind.containers {
        workload.logs = folder.join(number.to_string());
        fs::create_dir_all(&workload.logs)?;
        logs.push(workload.logs.join(LOG));
        pods.push(target.start_pod(true, &workload).await?);
    }
    tokio::time::sleep(SETTLE).await;

    warm(&folder.join("warm"), limits.bytes)?;
    let idle_kb = processes.daemon_kb()? + processes.shims_kb()?.1;
    let meter = processes.meter()?;
    File::create(gate.join("open"))?;
    let peak_kb = end(target, processes, &pods).await?;
    let (_, cpu) = meter.read()?;
    let text = all_text(&logs, kind.length)?;
    target.remove_pods(&pods).await?;
    // Only the folders that were made here: their place belongs to whoever called.
    for log in logs.iter().filter_map(|log| log.parent()).chain([gate.as_path()]) {
        fs::remove_dir_all(log)?;
    }

    let seconds = text.last - text.first;
    let gigabytes = text.bytes as f64 / 1e9;
    Ok(json!({
        "containers": kind.containers, "line_bytes": kind.length, "bytes": text.bytes, "seconds": seconds,
        "lines_printed": text.printed, "lines_lost": text.printed - text.lines,
        "mb_per_second": gigabytes * 1e3 / seconds,
        "runtime_cpu_s_per_gb": (cpu.daemon + cpu.shims) / gigabytes,
        "runtime_percent": (cpu.daemon + cpu.shims) / seconds * 100.0,
        "cpu_s": cpu.scaled(1.0), "idle_kb": idle_kb, "peak_kb": peak_kb,
    }))
}

/// Uses as much memory for a file as the logs are going to, and gives it back. In a virtual machine memory that was not
/// used for a while has to come from the host, which takes longer than everything that is measured here.
fn warm(path: &Path, bytes: u64) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    let block = vec![b'y'; 1 << 20];
    for _ in 0..bytes / block.len() as u64 {
        file.write_all(&block)?;
    }
    Ok(fs::remove_file(path)?)
}

fn workload(kind: Kind, seconds: f64, lines: u64, gate: &Path) -> Result<Workload, Failure> {
    let words = [
        "print",
        &kind.length.to_string(),
        &format!("--seconds={seconds}"),
        &format!("--lines={lines}"),
        &format!("--when={GATE}/open"),
    ];
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    if kind.single {
        words.push("--single".into());
    }
    let mut workload = Workload::inside(&words)?;
    workload.mounts.push(v1::Mount {
        host_path: gate.display().to_string(),
        container_path: GATE.into(),
        readonly: true,
        ..v1::Mount::default()
    });
    Ok(workload)
}

/// Waits until all containers have ended; gives the most memory that was seen on the way.
async fn end(target: &Target, processes: &Processes, pods: &[Pod]) -> Result<u64, Failure> {
    let began = Instant::now();
    let (mut peak, mut next) = (0, Duration::ZERO);
    loop {
        tokio::time::sleep(LOOK).await;
        let state = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() };
        let filter = v1::ContainerFilter { state: Some(state), ..v1::ContainerFilter::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let running = target.runtime.clone().list_containers(request).await?.into_inner().containers.len();
        if running == 0 {
            return Ok(peak);
        }
        if began.elapsed() > next {
            peak = peak.max(processes.daemon_kb()? + processes.shims_kb()?.1);
            next = began.elapsed() + LOOK_AT_MEMORY;
        }
        if began.elapsed() > LIMIT {
            return Err(format!("{running} of {} containers still print after {LIMIT:?}", pods.len()).into());
        }
    }
}

fn all_text(logs: &[PathBuf], length: usize) -> Result<Text, Failure> {
    let mut all: Option<Text> = None;
    for log in logs {
        let text = read(log, length)?;
        all = Some(match all {
            None => text,
            Some(before) => before.with(&text),
        });
    }
    all.ok_or_else(|| "no log to read".into())
}

//! Metrics of pods and containers in the names that cAdvisor gave them, for the kubelet's `/metrics/cadvisor`.

mod catalogue;

use std::path::Path;

use catalogue::{ALL, Definition};
use tripod_cri_api::v1::{ContainerMetrics, Metric, MetricDescriptor, PodSandboxMetrics, UInt64Value};
use tripod_engine::{
    ContainerRecord, ContainerState, ContainerUsage, PodRecord,
    usage::{CpuUsage, InterfaceUsage, MemoryUsage, Pressure, Usage},
};

use super::Runtime;

/// What each metric means. The same for the whole life of the daemon.
pub(super) fn descriptors() -> Vec<MetricDescriptor> {
    ALL.iter().map(Definition::descriptor).collect()
}

impl Runtime {
    /// Metrics of all pods that are ready.
    pub(super) async fn pods_metrics(&self) -> Vec<PodSandboxMetrics> {
        let mut all = Vec::new();
        let containers = self.engine.containers();
        for pod in self.engine.pods().iter().filter(|pod| pod.is_ready()) {
            let own = containers.iter().filter(|container| container.pod == pod.id).cloned().collect();
            let network = self.engine.pod_usage(pod.id.as_str()).await.unwrap_or_default();
            let measured = self.measure(own).await;
            all.push(PodSandboxMetrics {
                pod_sandbox_id: pod.id.to_string(),
                metrics: of_pod(pod, &network.interfaces, super::now()),
                container_metrics: measured
                    .iter()
                    .map(|(container, measured)| ContainerMetrics {
                        container_id: container.id.to_string(),
                        metrics: of_container(pod, container, measured),
                    })
                    .collect(),
            });
        }
        all
    }
}

/// Collects metrics that share their first labels.
struct Collector {
    labels: Vec<String>,
    timestamp: i64,
    metrics: Vec<Metric>,
}

impl Collector {
    fn add(&mut self, definition: &Definition, value: Option<u64>) {
        self.add_with(definition, &[], value);
    }

    /// What is not measured on this host is left out: absent is not 0.
    fn add_with(&mut self, definition: &Definition, more: &[&str], value: Option<u64>) {
        let Some(value) = value else { return };
        self.metrics.push(Metric {
            name: definition.name.to_owned(),
            timestamp: self.timestamp,
            metric_type: definition.kind.into(),
            label_values: self.labels.iter().cloned().chain(more.iter().map(|label| (*label).to_owned())).collect(),
            value: Some(UInt64Value { value }),
        });
    }
}

fn of_pod(pod: &PodRecord, interfaces: &[InterfaceUsage], timestamp: i64) -> Vec<Metric> {
    let (namespace, name) = (pod.config.namespace.clone(), pod.config.name.clone());
    let labels = vec![String::new(), pod.id.to_string(), String::new(), String::new(), namespace, name];
    let mut collector = Collector { labels, timestamp, metrics: Vec::new() };
    for usage in interfaces {
        let values = [
            (&catalogue::RECEIVE_BYTES, usage.rx_bytes),
            (&catalogue::RECEIVE_ERRORS, usage.rx_errors),
            (&catalogue::RECEIVE_DROPPED, usage.rx_dropped),
            (&catalogue::RECEIVE_PACKETS, usage.rx_packets),
            (&catalogue::TRANSMIT_BYTES, usage.tx_bytes),
            (&catalogue::TRANSMIT_ERRORS, usage.tx_errors),
            (&catalogue::TRANSMIT_DROPPED, usage.tx_dropped),
            (&catalogue::TRANSMIT_PACKETS, usage.tx_packets),
        ];
        for (definition, value) in values {
            collector.add_with(definition, &[&usage.name], Some(value));
        }
    }
    collector.metrics
}

fn of_container(pod: &PodRecord, container: &ContainerRecord, measured: &ContainerUsage) -> Vec<Metric> {
    let config = &container.config;
    let image =
        if config.image.user_specified.is_empty() { &config.image.requested } else { &config.image.user_specified };
    let id = container.id.to_string();
    let labels =
        vec![config.name.clone(), id.clone(), image.clone(), id, pod.config.namespace.clone(), pod.config.name.clone()];
    let mut collector = Collector { labels, timestamp: measured.sampled_at, metrics: Vec::new() };
    cpu(&mut collector, &measured.usage.cpu);
    memory(&mut collector, &measured.usage);
    disk(&mut collector, measured);
    processes(&mut collector, &measured.usage);
    facts(&mut collector, container);
    collector.metrics
}

fn seconds(nanoseconds: Option<u64>) -> Option<u64> {
    nanoseconds.map(|nanoseconds| nanoseconds / 1_000_000_000)
}

fn cpu(collector: &mut Collector, usage: &CpuUsage) {
    collector.add(&catalogue::CPU_USAGE, seconds(usage.total_ns));
    collector.add(&catalogue::CPU_USER, seconds(usage.user_ns));
    collector.add(&catalogue::CPU_SYSTEM, seconds(usage.system_ns));
    collector.add(&catalogue::CFS_PERIODS, usage.periods);
    collector.add(&catalogue::CFS_THROTTLED_PERIODS, usage.throttled_periods);
    collector.add(&catalogue::CFS_THROTTLED, seconds(usage.throttled_ns));
    pressure(collector, usage.pressure, [&catalogue::CPU_WAITING, &catalogue::CPU_STALLED]);
}

fn pressure(collector: &mut Collector, pressure: Option<Pressure>, [waiting, stalled]: [&Definition; 2]) {
    collector.add(waiting, pressure.map(|pressure| pressure.some.total / 1_000_000));
    collector.add(stalled, pressure.map(|pressure| pressure.full.total / 1_000_000));
}

fn memory(collector: &mut Collector, usage: &Usage) {
    let MemoryUsage { cache, rss, kernel, mapped_file, failcnt, max_usage, working_set, .. } = usage.memory;
    collector.add(&catalogue::MEMORY_CACHE, cache);
    collector.add(&catalogue::MEMORY_RSS, rss);
    collector.add(&catalogue::MEMORY_KERNEL, kernel);
    collector.add(&catalogue::MEMORY_MAPPED_FILE, mapped_file);
    collector.add(&catalogue::MEMORY_SWAP, usage.swap.usage);
    collector.add(&catalogue::MEMORY_FAILCNT, failcnt);
    collector.add(&catalogue::MEMORY_USAGE, usage.memory.usage);
    collector.add(&catalogue::MEMORY_MAX_USAGE, max_usage);
    collector.add(&catalogue::MEMORY_WORKING_SET, working_set);
    collector.add_with(&catalogue::MEMORY_FAILURES, &["pgfault", "container"], usage.memory.page_faults);
    collector.add_with(&catalogue::MEMORY_FAILURES, &["pgmajfault", "container"], usage.memory.major_page_faults);
    collector.add(&catalogue::OOM_EVENTS, usage.memory.oom_kills);
    pressure(collector, usage.memory.pressure, [&catalogue::MEMORY_WAITING, &catalogue::MEMORY_STALLED]);
    for pages in &usage.hugepages {
        collector.add_with(&catalogue::HUGETLB_USAGE, &[&pages.size], Some(pages.usage));
        collector.add_with(&catalogue::HUGETLB_MAX_USAGE, &[&pages.size], Some(pages.max_usage));
        collector.add_with(&catalogue::HUGETLB_FAILCNT, &[&pages.size], Some(pages.failcnt));
    }
}

fn disk(collector: &mut Collector, measured: &ContainerUsage) {
    // The writable layer lies on no device that a container could name.
    collector.add_with(&catalogue::FS_USAGE, &[""], measured.writable.map(|layer| layer.bytes));
    pressure(collector, measured.usage.io_pressure, [&catalogue::IO_WAITING, &catalogue::IO_STALLED]);
    for io in &measured.usage.io {
        let (major, minor) = io.device;
        let device = device_name(major, minor);
        collector.add_with(&catalogue::FS_READ_BYTES, &[&device], Some(io.read_bytes));
        collector.add_with(&catalogue::FS_READS, &[&device], Some(io.reads));
        collector.add_with(&catalogue::FS_WRITE_BYTES, &[&device], Some(io.write_bytes));
        collector.add_with(&catalogue::FS_WRITES, &[&device], Some(io.writes));
        let (major, minor) = (major.to_string(), minor.to_string());
        for (operation, value) in [("Read", io.read_bytes), ("Write", io.write_bytes)] {
            collector.add_with(&catalogue::BLKIO_USAGE, &[&device, &major, &minor, operation], Some(value));
        }
    }
}

/// `/dev/sda` for 8:0; empty for a device that the kernel does not name.
fn device_name(major: u32, minor: u32) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.map_or_else(String::new, |name| format!("/dev/{name}"))
}

fn processes(collector: &mut Collector, usage: &Usage) {
    collector.add(&catalogue::PROCESSES, usage.pids.processes);
    collector.add(&catalogue::THREADS, usage.pids.threads);
    collector.add(&catalogue::THREADS_MAX, usage.pids.limit);
}

fn facts(collector: &mut Collector, container: &ContainerRecord) {
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let limits = &container.resources;
    let started = match container.state {
        ContainerState::Running { started_at, .. } => positive(Some(started_at)),
        _ => None,
    };
    let now = positive(Some(collector.timestamp));
    collector.add(&catalogue::LAST_SEEN, seconds(now));
    collector.add(&catalogue::START_TIME, seconds(started));
    collector.add(&catalogue::SPEC_CPU_PERIOD, limits.cpu_period);
    collector.add(&catalogue::SPEC_CPU_QUOTA, positive(limits.cpu_quota));
    collector.add(&catalogue::SPEC_CPU_SHARES, limits.cpu_shares);
    collector.add(&catalogue::SPEC_MEMORY_LIMIT, positive(limits.memory_limit));
    collector.add(&catalogue::SPEC_SWAP_LIMIT, positive(limits.memory_swap));
}

#[cfg(test)]
mod tests;

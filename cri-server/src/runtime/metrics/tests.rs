use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tripod_engine::{
    ContainerConfig, ContainerId, ContainerRecord, ContainerState, ContainerUsage, PodConfig, PodId, PodRecord,
    PodState,
    usage::{CpuUsage, HugepageUsage, InterfaceUsage, IoUsage, MemoryUsage, Pressure, Usage, WritableLayer},
};

use super::{descriptors, of_container, of_pod};

fn everything() -> ContainerUsage {
    let some = Some(3_000_000_000);
    let cpu = CpuUsage {
        total_ns: some,
        user_ns: some,
        system_ns: some,
        periods: some,
        throttled_periods: some,
        throttled_ns: some,
        pressure: Some(Pressure::default()),
    };
    let memory = MemoryUsage {
        usage: some,
        working_set: some,
        rss: some,
        cache: some,
        mapped_file: some,
        max_usage: some,
        limit: some,
        page_faults: some,
        major_page_faults: some,
        failcnt: some,
        oom_kills: some,
        kernel: some,
        pressure: Some(Pressure::default()),
    };
    let mut usage = Usage { cpu, memory, ..Usage::default() };
    usage.io_pressure = Some(Pressure::default());
    usage.swap.usage = some;
    usage.pids.processes = some;
    usage.pids.threads = some;
    usage.pids.limit = some;
    usage.io.push(IoUsage { device: (7, 1), ..IoUsage::default() });
    usage.hugepages.push(HugepageUsage { size: "2MB".into(), ..HugepageUsage::default() });
    ContainerUsage { usage, writable: Some(WritableLayer { bytes: 1, inodes: 1 }), sampled_at: 5_000_000_000 }
}

#[test]
fn every_metric_is_described_and_every_description_used() {
    let described: BTreeMap<String, usize> =
        descriptors().into_iter().map(|descriptor| (descriptor.name, descriptor.label_keys.len())).collect();
    assert_eq!(described.len(), descriptors().len(), "two metrics of one name");

    let pod = PodRecord {
        id: PodId::random(),
        config: Arc::new(PodConfig { name: "web".into(), namespace: "default".into(), ..PodConfig::default() }),
        created_at: 1,
        state: PodState::Ready { shim_pid: 1 },
        ips: Vec::new(),
    };
    let mut container = ContainerRecord {
        id: ContainerId::random(),
        pod: pod.id.clone(),
        config: Arc::new(ContainerConfig { name: "nginx".into(), ..ContainerConfig::default() }),
        created_at: 1,
        state: ContainerState::Running { pid: 2, started_at: 4_000_000_000 },
        credentials: Default::default(),
        resources: Default::default(),
        limitation: None,
    };
    container.resources.cpu_period = Some(1);
    container.resources.cpu_quota = Some(1);
    container.resources.cpu_shares = Some(2);
    container.resources.memory_limit = Some(1);
    container.resources.memory_swap = Some(1);

    let mut metrics = of_container(&pod, &container, &everything());
    metrics.extend(of_pod(&pod, &[InterfaceUsage { name: "eth0".into(), ..InterfaceUsage::default() }], 1));
    for metric in &metrics {
        assert_eq!(described.get(&metric.name), Some(&metric.label_values.len()), "{}", metric.name);
    }
    let used: BTreeSet<&String> = metrics.iter().map(|metric| &metric.name).collect();
    assert_eq!(used, described.keys().collect());
    let cpu = metrics.iter().find(|metric| metric.name == "container_cpu_usage_seconds_total").unwrap();
    assert_eq!(cpu.value.unwrap().value, 3);
    assert_eq!(cpu.label_values[4..], ["default", "web"]);
}

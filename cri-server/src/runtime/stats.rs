//! What containers and pods use.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use tonic::Status;
use tripod_cri_api::v1::{
    ContainerAttributes, ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ContainerStatsResponse, CpuUsage,
    FilesystemIdentifier, FilesystemUsage, IoUsage, LinuxPodSandboxStats, MemoryUsage, NetworkInterfaceUsage,
    NetworkUsage, PodSandboxAttributes, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatsRequest,
    PodSandboxStatsResponse, ProcessUsage, PsiData, PsiStats, SwapUsage, UInt64Value,
};
use tripod_engine::{
    ContainerRecord, ContainerState, ContainerUsage, PodRecord,
    usage::{InterfaceUsage, PodUsage, Pressure, PressureLine},
};

use super::{Runtime, filter};
use crate::{convert, status_code::status};

/// Containers that are measured at the same time.
const TOGETHER: usize = 16;

impl Runtime {
    pub(super) async fn container_stats(
        &self,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse, Status> {
        let container = self.engine.container(&request.container_id).map_err(status)?;
        let usage = self.engine.container_usage(container.id.as_str()).await.map_err(status)?;
        Ok(ContainerStatsResponse { stats: Some(self.stats_of(&container, &usage)) })
    }

    /// Containers that run. One that ends meanwhile is left out: that is no error of the list.
    pub(super) async fn containers_stats(
        &self,
        filter: Option<&ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>, Status> {
        let all = self.engine.containers();
        let meant = all.iter().filter(|container| filter::container_stats(filter, container)).cloned().collect();
        let stats = self.measure(meant).await;
        self.forget_the_rest();
        Ok(stats.iter().map(|(container, usage)| self.stats_of(container, usage)).collect())
    }

    pub(super) async fn pod_stats(&self, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse, Status> {
        let pod = self.engine.pod(&request.pod_sandbox_id).map_err(status)?;
        let usage = self.engine.pod_usage(pod.id.as_str()).await.map_err(status)?;
        Ok(PodSandboxStatsResponse { stats: Some(self.stats_of_pod(&pod, &usage).await) })
    }

    /// Pods that are ready.
    pub(super) async fn pods_stats(
        &self,
        filter: Option<&PodSandboxStatsFilter>,
    ) -> Result<Vec<PodSandboxStats>, Status> {
        let pods = self.engine.pods();
        let mut stats = Vec::new();
        for pod in pods.iter().filter(|pod| pod.is_ready() && filter::pod_stats(filter, pod)) {
            if let Ok(usage) = self.engine.pod_usage(pod.id.as_str()).await {
                stats.push(self.stats_of_pod(pod, &usage).await);
            }
        }
        self.forget_the_rest();
        Ok(stats)
    }

    /// Measures those of the containers that run.
    pub(super) async fn measure(
        &self,
        containers: Vec<Arc<ContainerRecord>>,
    ) -> Vec<(Arc<ContainerRecord>, ContainerUsage)> {
        let running =
            containers.into_iter().filter(|container| matches!(container.state, ContainerState::Running { .. }));
        let measured = stream::iter(running).map(|container| async move {
            let usage = self.engine.container_usage(container.id.as_str()).await.ok()?;
            Some((container, usage))
        });
        measured.buffered(TOGETHER).filter_map(std::future::ready).collect().await
    }

    fn forget_the_rest(&self) {
        let (pods, containers) = (self.engine.pods(), self.engine.containers());
        let known: HashSet<&str> =
            pods.iter().map(|pod| pod.id.as_str()).chain(containers.iter().map(|one| one.id.as_str())).collect();
        self.rates.keep(&known);
    }

    fn stats_of(&self, container: &ContainerRecord, measured: &ContainerUsage) -> ContainerStats {
        let (usage, timestamp) = (&measured.usage, measured.sampled_at);
        let rate = usage.cpu.total_ns.and_then(|total| self.rates.rate(container.id.as_str(), timestamp, total));
        let left = |limit: Option<u64>, used: Option<u64>| Some(limit?.saturating_sub(used?));
        ContainerStats {
            attributes: Some(ContainerAttributes {
                id: container.id.to_string(),
                metadata: Some(convert::metadata(&container.config)),
                labels: container.config.labels.clone().into_iter().collect(),
                annotations: container.config.annotations.clone().into_iter().collect(),
            }),
            cpu: Some(CpuUsage {
                timestamp,
                usage_core_nano_seconds: number(usage.cpu.total_ns),
                usage_nano_cores: number(rate),
                psi: usage.cpu.pressure.map(psi),
            }),
            memory: Some(MemoryUsage {
                timestamp,
                working_set_bytes: number(usage.memory.working_set),
                available_bytes: number(left(usage.memory.limit, usage.memory.working_set)),
                usage_bytes: number(usage.memory.usage),
                rss_bytes: number(usage.memory.rss),
                page_faults: number(usage.memory.page_faults),
                major_page_faults: number(usage.memory.major_page_faults),
                psi: usage.memory.pressure.map(psi),
            }),
            writable_layer: measured.writable.map(|layer| FilesystemUsage {
                timestamp,
                fs_id: Some(FilesystemIdentifier { mountpoint: self.images.mountpoint() }),
                used_bytes: number(Some(layer.bytes)),
                inodes_used: number(Some(layer.inodes)),
            }),
            swap: Some(SwapUsage {
                timestamp,
                swap_available_bytes: number(left(usage.swap.limit, usage.swap.usage)),
                swap_usage_bytes: number(usage.swap.usage),
            }),
            io: Some(IoUsage { timestamp, psi: usage.io_pressure.map(psi) }),
        }
    }

    async fn stats_of_pod(&self, pod: &PodRecord, usage: &PodUsage) -> PodSandboxStats {
        let containers = self.engine.containers();
        let own = containers.into_iter().filter(|container| container.pod == pod.id).collect();
        let measured = self.measure(own).await;
        let timestamp = super::now();
        let running: HashMap<String, u64> = measured
            .iter()
            .filter_map(|(container, measured)| Some((container.id.to_string(), measured.usage.cpu.total_ns?)))
            .collect();
        let total = self.rates.pod_time(pod.id.as_str(), running);
        let processes = sum(measured.iter().map(|(_, measured)| measured.usage.pids.processes));
        let stats: Vec<ContainerStats> =
            measured.iter().map(|(container, measured)| self.stats_of(container, measured)).collect();
        PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: pod.id.to_string(),
                metadata: Some(convert::pod_metadata(&pod.config)),
                labels: pod.config.labels.clone().into_iter().collect(),
                annotations: pod.config.annotations.clone().into_iter().collect(),
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: Some(CpuUsage {
                    timestamp,
                    usage_core_nano_seconds: number(Some(total)),
                    usage_nano_cores: number(self.rates.rate(pod.id.as_str(), timestamp, total)),
                    psi: None,
                }),
                memory: Some(pod_memory(timestamp, &stats)),
                network: network(timestamp, &usage.interfaces),
                process: Some(ProcessUsage { timestamp, process_count: number(processes) }),
                containers: stats,
                io: None,
            }),
            windows: None,
        }
    }
}

/// The sum over containers. What a pod has left is what its own limit leaves, which is the kubelet's to know.
fn pod_memory(timestamp: i64, containers: &[ContainerStats]) -> MemoryUsage {
    let sum = |field: fn(&MemoryUsage) -> Option<UInt64Value>| {
        let values =
            containers.iter().filter_map(|stats| stats.memory.as_ref()).map(|memory| field(memory).map(|n| n.value));
        number(sum(values))
    };
    MemoryUsage {
        timestamp,
        working_set_bytes: sum(|memory| memory.working_set_bytes),
        available_bytes: None,
        usage_bytes: sum(|memory| memory.usage_bytes),
        rss_bytes: sum(|memory| memory.rss_bytes),
        page_faults: sum(|memory| memory.page_faults),
        major_page_faults: sum(|memory| memory.major_page_faults),
        psi: None,
    }
}

/// A pod on the host's network has no traffic of its own.
fn network(timestamp: i64, interfaces: &[InterfaceUsage]) -> Option<NetworkUsage> {
    let (default, others) = interfaces.split_first()?;
    Some(NetworkUsage {
        timestamp,
        default_interface: Some(interface(default)),
        interfaces: others.iter().map(interface).collect(),
    })
}

fn interface(usage: &InterfaceUsage) -> NetworkInterfaceUsage {
    NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: number(Some(usage.rx_bytes)),
        rx_errors: number(Some(usage.rx_errors)),
        tx_bytes: number(Some(usage.tx_bytes)),
        tx_errors: number(Some(usage.tx_errors)),
    }
}

/// The kernel counts microseconds, the contract nanoseconds.
fn psi(pressure: Pressure) -> PsiStats {
    let line = |line: PressureLine| PsiData {
        total: line.total.saturating_mul(1000),
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    PsiStats { full: Some(line(pressure.full)), some: Some(line(pressure.some)) }
}

fn number(value: Option<u64>) -> Option<UInt64Value> {
    value.map(|value| UInt64Value { value })
}

/// The sum of what is known; unknown if nothing is. The sum over nothing is 0.
fn sum(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let values: Vec<_> = values.collect();
    if !values.is_empty() && values.iter().all(Option::is_none) {
        return None;
    }
    Some(values.into_iter().flatten().sum())
}

//! Events, stats and metrics (contract: lines 34 to 37).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::StreamExt;
use tripod_cri_api::v1::{
    ContainerEventResponse, ContainerEventType, ContainerStats, ContainerStatsRequest, GetEventsRequest,
    ListContainerStatsRequest, ListMetricDescriptorsRequest, ListPodSandboxMetricsRequest, PodSandboxStatsRequest,
};
use tripod_tests::{Cri, Node, eventually, host_pod, pod, processes, shell, tests, within};

tests![
    events_come_in_order_to_every_subscriber,
    a_subscriber_that_does_not_read_holds_nobody_up,
    container_counters_grow,
    pod_stats_hold_network_and_processes,
    metrics_are_described_once_and_for_all,
    lists_are_cheap,
];

type Events = tonic::Streaming<ContainerEventResponse>;

async fn subscribe(cri: &Cri) -> Events {
    // The answer's head may come only with the first event.
    cri.runtime().get_container_events(GetEventsRequest::default()).await.unwrap().into_inner()
}

/// The kinds of events of one object, until it is deleted.
async fn life(events: &mut Events, id: &str) -> Vec<ContainerEventResponse> {
    let mut seen = Vec::new();
    within("the events", Duration::from_secs(30), async {
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            if event.container_id == id {
                let last = event.container_event_type() == ContainerEventType::ContainerDeletedEvent;
                seen.push(event);
                if last {
                    break;
                }
            }
        }
    })
    .await;
    seen
}

/// 34.
async fn events_come_in_order_to_every_subscriber(node: &mut Node) {
    use ContainerEventType::{
        ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent, ContainerStoppedEvent,
    };
    let cri = node.ready().await;
    let mut subscribers = Vec::new();
    for _ in 0..5 {
        subscribers.push(subscribe(&cri).await);
    }
    let config = host_pod("events");
    let (pod, container) = cri.run_in_pod(&config, &shell("main", "exit 4")).await.unwrap();
    cri.exited(&container).await;
    cri.remove(&container).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    for events in &mut subscribers {
        let seen = life(events, &container).await;
        let kinds: Vec<_> = seen.iter().map(ContainerEventResponse::container_event_type).collect();
        assert_eq!(kinds, [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent, ContainerDeletedEvent]);
        assert!(seen.is_sorted_by_key(|event| event.created_at));
        let stopped = &seen[2];
        assert_eq!(stopped.pod_sandbox_status.as_ref().unwrap().id, pod);
        let status = stopped.containers_statuses.iter().find(|status| status.id == container).unwrap();
        assert_eq!(status.exit_code, 4);
    }
}

/// 34.
async fn a_subscriber_that_does_not_read_holds_nobody_up(node: &mut Node) {
    let cri = node.ready().await;
    let _idle = subscribe(&cri).await;
    let mut reading = subscribe(&cri).await;
    let config = host_pod("events");
    let pod = cri.run_pod(&config).await.unwrap();
    for number in 0..30 {
        let id = cri.run(&pod, &config, &shell(&format!("c{number}"), "true")).await.unwrap();
        cri.exited(&id).await;
        cri.remove(&id).await.unwrap();
        assert_eq!(life(&mut reading, &id).await.len(), 4);
    }
}

async fn stats(cri: &Cri, id: &str) -> ContainerStats {
    let request = ContainerStatsRequest { container_id: id.to_owned() };
    cri.runtime().container_stats(request).await.unwrap().into_inner().stats.unwrap()
}

/// 35.
async fn container_counters_grow(node: &mut Node) {
    let cri = node.ready().await;
    let script = "dd if=/dev/zero of=/file bs=1M count=3 2>/dev/null; mkdir /dir; while :; do :; done";
    let (_, id) = cri.run_in_pod(&host_pod("stats"), &shell("main", script)).await.unwrap();
    let layer = |stats: &ContainerStats| {
        let layer = stats.writable_layer.as_ref().unwrap();
        (layer.used_bytes.unwrap().value, layer.inodes_used.unwrap().value)
    };
    let mut before = stats(&cri, &id).await;
    eventually("the writable layer grows", Duration::from_secs(30), async || {
        (layer(&stats(&cri, &id).await).0 >= 3 << 20).then_some(())
    })
    .await;
    assert!(layer(&stats(&cri, &id).await).1 >= 2);
    for _ in 0..3 {
        let cpu = |stats: &ContainerStats| {
            let cpu = stats.cpu.as_ref().unwrap();
            (cpu.usage_core_nano_seconds.unwrap().value, cpu.timestamp)
        };
        before = eventually("the time of the processor grows", Duration::from_secs(20), async || {
            let now = stats(&cri, &id).await;
            (cpu(&now).0 > cpu(&before).0 && cpu(&now).1 > cpu(&before).1).then_some(now)
        })
        .await;
    }
    let memory = before.memory.unwrap();
    assert!(memory.working_set_bytes.unwrap().value > 0 && memory.usage_bytes.unwrap().value > 0);
    assert!(memory.page_faults.unwrap().value > 0);
    let attributes = before.attributes.unwrap();
    assert_eq!((attributes.id, attributes.metadata.unwrap().name), (id.clone(), "main".to_owned()));
    assert_eq!(attributes.labels, HashMap::from([("name".to_owned(), "main".to_owned())]));
    let all =
        cri.runtime().list_container_stats(ListContainerStatsRequest::default()).await.unwrap().into_inner().stats;
    assert_eq!(all.len(), 1);
}

/// 35.
async fn pod_stats_hold_network_and_processes(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, id) = cri.run_in_pod(&pod("stats"), &shell("main", "sleep 1000 & sleep 1000 & wait")).await.unwrap();
    let both = async || (processes(&["sleep", "1000"]).len() == 2).then_some(());
    eventually("both of its processes", Duration::from_secs(20), both).await;
    cri.sh(&id, "ping -c 3 -i 0.1 192.0.2.10 >&2").await;
    let request = PodSandboxStatsRequest { pod_sandbox_id: pod };
    let stats = cri.runtime().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap().linux.unwrap();
    let interface = stats.network.unwrap().default_interface.unwrap();
    assert_eq!(interface.name, "eth0");
    assert!(interface.rx_bytes.unwrap().value > 200 && interface.tx_bytes.unwrap().value > 200);
    assert!(stats.process.unwrap().process_count.unwrap().value >= 3);
    assert_eq!(stats.containers.len(), 1);
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
}

/// 36.
async fn metrics_are_described_once_and_for_all(node: &mut Node) {
    let cri = node.ready().await;
    let descriptors = async || {
        let answer = cri.runtime().list_metric_descriptors(ListMetricDescriptorsRequest::default()).await.unwrap();
        answer.into_inner().descriptors
    };
    let before = descriptors().await;
    cri.run_in_pod(&pod("metrics"), &shell("main", "sleep 1000")).await.unwrap();
    assert_eq!(descriptors().await, before);
    let labels: HashMap<&str, usize> = before.iter().map(|one| (one.name.as_str(), one.label_keys.len())).collect();
    for name in [
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_network_receive_bytes_total",
    ] {
        assert!(labels.contains_key(name), "{name}");
    }
    let answer = cri.runtime().list_pod_sandbox_metrics(ListPodSandboxMetricsRequest::default()).await.unwrap();
    let pods = answer.into_inner().pod_metrics;
    assert_eq!(pods.len(), 1);
    let metrics: Vec<_> =
        pods[0].metrics.iter().chain(pods[0].container_metrics.iter().flat_map(|one| &one.metrics)).collect();
    let names: HashSet<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert!(names.contains("container_memory_working_set_bytes"), "{names:?}");
    for metric in metrics {
        assert_eq!(labels.get(metric.name.as_str()), Some(&metric.label_values.len()), "{}", metric.name);
    }
}

/// What a process has had of the processors so far, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// 37.
async fn lists_are_cheap(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("many");
    let pod = cri.run_pod(&config).await.unwrap();
    for number in 0..40 {
        cri.create(&pod, &config, &shell(&format!("c{number}"), "true")).await.unwrap();
    }
    let begin = ticks(node.daemon().pid());
    for _ in 0..100 {
        assert_eq!(cri.containers().await.len(), 40);
    }
    let spent = ticks(node.daemon().pid()) - begin;
    assert!(spent < 300, "{spent} ticks for 100 lists");
}

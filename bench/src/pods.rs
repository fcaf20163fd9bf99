//! Times of the calls that make a pod's life.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tonic::Status;
use tripod_cri_api::v1;

use crate::{
    samples::Samples,
    target::{Pod, Target, Workload},
};

/// Pods that are not counted: the first ones load files and make bridges.
const WARM_UP: usize = 2;

/// The times of one pod.
type Life = Vec<(&'static str, Duration)>;

/// One pod after the other.
pub async fn one_by_one(target: &Target, count: usize, host_network: bool) -> Result<Value, Status> {
    target.pull().await?;
    for _ in 0..WARM_UP {
        life(target, host_network).await?;
    }
    let mut calls: BTreeMap<&str, Samples> = BTreeMap::new();
    for _ in 0..count {
        for (call, time) in life(target, host_network).await? {
            calls.entry(call).or_default().add(time);
        }
    }
    let summary: BTreeMap<_, _> = calls.iter_mut().map(|(call, samples)| (*call, samples.summary())).collect();
    Ok(json!({ "pods": count, "host_network": host_network, "calls": summary }))
}

/// The whole life of a pod with one container.
async fn life(target: &Target, host_network: bool) -> Result<Life, Status> {
    let mut runtime = target.runtime.clone();
    let config = target.pod_config(host_network);
    let mut clock = Clock { began: Instant::now(), last: Instant::now(), times: Vec::new() };

    let run = v1::RunPodSandboxRequest { config: Some(config.clone()), ..v1::RunPodSandboxRequest::default() };
    let pod = runtime.run_pod_sandbox(run).await?.into_inner().pod_sandbox_id;
    clock.lap("1 RunPodSandbox");
    let create = v1::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(target.container_config(&config, &Workload::default())),
        sandbox_config: Some(config),
    };
    let container = runtime.create_container(create).await?.into_inner().container_id;
    clock.lap("2 CreateContainer");
    runtime.start_container(v1::StartContainerRequest { container_id: container.clone() }).await?;
    clock.lap("3 StartContainer");
    clock.sum("A pod running (1-3)");
    let exec = v1::ExecSyncRequest { container_id: container.clone(), cmd: vec!["true".into()], timeout: 10 };
    let exit_code = runtime.exec_sync(exec).await?.into_inner().exit_code;
    if exit_code != 0 {
        return Err(Status::internal(format!("`true` ended with {exit_code}")));
    }
    clock.lap("4 ExecSync true");
    runtime.stop_container(v1::StopContainerRequest { container_id: container.clone(), timeout: 0 }).await?;
    clock.lap("5 StopContainer");
    runtime.remove_container(v1::RemoveContainerRequest { container_id: container }).await?;
    clock.lap("6 RemoveContainer");
    runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
    clock.lap("7 StopPodSandbox");
    runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
    clock.lap("8 RemovePodSandbox");
    clock.sum("B whole life (1-8)");
    Ok(clock.times)
}

struct Clock {
    began: Instant,
    last: Instant,
    times: Life,
}

impl Clock {
    fn lap(&mut self, call: &'static str) {
        self.times.push((call, self.last.elapsed()));
        self.last = Instant::now();
    }

    fn sum(&mut self, name: &'static str) {
        self.times.push((name, self.began.elapsed()));
    }
}

/// Many pods at a time.
pub async fn burst(target: &Target, count: usize, parallel: usize, host_network: bool) -> Result<Value, Status> {
    target.pull().await?;
    let workload = Workload::default();
    target.remove_pod(&target.start_pod(host_network, &workload).await?.id).await?;
    let began = Instant::now();
    let starts = stream::iter(0..count).map(|_| target.start_pod(host_network, &workload)).buffer_unordered(parallel);
    let pods: Vec<Pod> = starts.try_collect().await?;
    let took = began.elapsed();
    stream::iter(&pods).map(|pod| target.remove_pod(&pod.id)).buffer_unordered(parallel).try_collect::<()>().await?;
    let whole = began.elapsed();
    let rate = |time: Duration| (count as f64 / time.as_secs_f64() * 10.0).round() / 10.0;
    Ok(json!({
        "pods": count, "at_a_time": parallel, "host_network": host_network,
        "pods_started_per_second": rate(took), "pod_lives_per_second": rate(whole),
    }))
}

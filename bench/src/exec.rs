//! Round trips of a command that does nothing.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use tonic::Status;
use tripod_cri_api::v1;

use crate::{
    Failure,
    remote::{Address, Command, Transport},
    samples::Samples,
    target::{Target, Workload},
};

/// Commands that are not counted.
const WARM_UP: usize = 5;

/// ExecSync, one after the other and many at a time, then the streaming server with each of its transports.
pub async fn round_trips(
    target: &Target,
    count: usize,
    parallel: usize,
    transports: &[Transport],
) -> Result<Value, Failure> {
    target.pull().await?;
    let pod = target.start_pod(false, &Workload::default()).await?;
    let mut result = Map::new();
    let mut samples = Samples::default();
    for number in 0..WARM_UP + count {
        let time = exec_sync(target, &pod.container).await?;
        if number >= WARM_UP {
            samples.add(time);
        }
    }
    result.insert("ExecSync".into(), samples.summary());

    let began = Instant::now();
    let all = stream::iter(0..count).map(|_| exec_sync(target, &pod.container)).buffer_unordered(parallel);
    let mut samples = Samples::default();
    samples.extend(all.try_collect::<Vec<_>>().await?);
    let rate = (count as f64 / began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let mut summary = samples.summary();
    summary["per_second"] = json!(rate);
    result.insert(format!("ExecSync, {parallel} at a time"), summary);

    for transport in transports {
        result.insert(transport.name().to_owned(), streamed(target, &pod.container, count, *transport).await?);
    }
    target.remove_pod(&pod.id).await?;
    Ok(result.into())
}

/// One ExecSync of `true`.
pub async fn exec_sync(target: &Target, container: &str) -> Result<Duration, Status> {
    let request = v1::ExecSyncRequest { container_id: container.into(), cmd: vec!["true".into()], timeout: 10 };
    let began = Instant::now();
    let exit_code = target.runtime.clone().exec_sync(request).await?.into_inner().exit_code;
    if exit_code != 0 {
        return Err(Status::internal(format!("`true` ended with {exit_code}")));
    }
    Ok(began.elapsed())
}

async fn streamed(target: &Target, container: &str, count: usize, transport: Transport) -> Result<Value, Failure> {
    let command = vec!["true".to_owned()];
    let (mut call, mut whole) = (Samples::default(), Samples::default());
    for number in 0..WARM_UP + count {
        let began = Instant::now();
        let address = Address::of_exec(target, container, &command, false).await?;
        let called = began.elapsed();
        Command::open(transport, &address, false).await?.finish().await?;
        if number >= WARM_UP {
            call.add(called);
            whole.add(began.elapsed());
        }
    }
    let mut summary = whole.summary();
    summary["of_that_exec_rpc"] = call.summary();
    Ok(summary)
}

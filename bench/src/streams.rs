//! Throughput and latency of streams into and out of containers.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use crate::{
    Failure, inside,
    processes::{Meter, Processes},
    remote::{Address, Command, Connection, Transport},
    samples::Samples,
    spdy::Forward,
    target::{Pod, Target, Workload, inside as command_inside},
};

/// Where the server in the pod listens.
const PORT: u16 = 7000;

/// Pings that are not counted.
const WARM_UP: usize = 10;

/// How long the server in the pod may take to listen.
const LISTENS: Duration = Duration::from_secs(10);

/// Exec and port-forward with each of the `transports`.
pub async fn all(
    target: &Target,
    processes: &Processes,
    bytes: u64,
    pings: usize,
    transports: &[Transport],
) -> Result<Value, Failure> {
    target.pull().await?;
    let pod = target.start_pod(false, &Workload::inside(&strings(&[&"serve", &PORT]))?).await?;
    listens(target, &pod, transports).await?;
    let mut result = Map::new();
    for transport in transports {
        let measured = json!({
            "exec out": exec_out(target, processes, &pod, bytes, *transport).await?,
            "exec in": exec_in(target, processes, &pod, bytes, *transport).await?,
            "port-forward out": forward(target, processes, &pod, inside::SEND, bytes, *transport).await?,
            "port-forward in": forward(target, processes, &pod, inside::TAKE, bytes, *transport).await?,
            "port-forward, 1 byte and back": ping(target, &pod, pings, *transport).await?,
            "port-forward, connect and 1 byte": connect(target, &pod, pings, *transport).await?,
        });
        result.insert(transport.name().to_owned(), measured);
    }
    if let Some(measured) = result.get_mut(Transport::Spdy.name()) {
        measured["port-forward, one more connection and 1 byte"] = one_more(target, &pod, pings).await?;
    }
    target.remove_pod(&pod.id).await?;
    Ok(result.into())
}

fn strings(words: &[&dyn Display]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Waits until the server in the pod can be reached.
async fn listens(target: &Target, pod: &Pod, transports: &[Transport]) -> Result<(), Failure> {
    let transport = *transports.first().ok_or("no transport to measure")?;
    let began = Instant::now();
    loop {
        let error = match connect(target, pod, 1, transport).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if began.elapsed() > LISTENS {
            return Err(format!("port {PORT} of pod {} cannot be reached: {error}", pod.id).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn exec_out(
    target: &Target,
    processes: &Processes,
    pod: &Pod,
    bytes: u64,
    transport: Transport,
) -> Result<Value, Failure> {
    let command = command_inside(&strings(&[&"source", &bytes]));
    let meter = processes.meter()?;
    let address = Address::of_exec(target, &pod.container, &command, false).await?;
    let came = Command::open(transport, &address, false).await?.finish().await?;
    if came != bytes {
        return Err(format!("{came} bytes came out of the container instead of {bytes}").into());
    }
    throughput(&meter, bytes)
}

async fn exec_in(
    target: &Target,
    processes: &Processes,
    pod: &Pod,
    bytes: u64,
    transport: Transport,
) -> Result<Value, Failure> {
    let command = command_inside(&strings(&[&"sink", &bytes]));
    let meter = processes.meter()?;
    let address = Address::of_exec(target, &pod.container, &command, true).await?;
    let mut running = Command::open(transport, &address, true).await?;
    running.write(bytes).await?;
    running.finish().await?;
    throughput(&meter, bytes)
}

async fn forward(
    target: &Target,
    processes: &Processes,
    pod: &Pod,
    direction: u8,
    bytes: u64,
    transport: Transport,
) -> Result<Value, Failure> {
    let meter = processes.meter()?;
    let address = Address::of_port(target, &pod.id, PORT).await?;
    let mut connection = Connection::open(transport, &address, PORT).await?;
    if direction == inside::SEND {
        connection.read(bytes).await?;
    } else {
        connection.write(bytes).await?;
    }
    let result = throughput(&meter, bytes);
    connection.close().await?;
    result
}

/// Megabytes a second, and seconds of processors for a gigabyte.
fn throughput(meter: &Meter<'_>, bytes: u64) -> Result<Value, Failure> {
    let (seconds, cpu) = meter.read()?;
    let gigabytes = bytes as f64 / 1e9;
    Ok(json!({
        "bytes": bytes, "mb_per_second": gigabytes * 1e3 / seconds,
        "runtime_cpu_s_per_gb": (cpu.daemon + cpu.shims) / gigabytes,
        "cpu_s_per_gb": cpu.scaled(1.0 / gigabytes),
    }))
}

/// A byte there and back over a connection that stands.
async fn ping(target: &Target, pod: &Pod, count: usize, transport: Transport) -> Result<Value, Failure> {
    let address = Address::of_port(target, &pod.id, PORT).await?;
    let mut connection = Connection::open(transport, &address, PORT).await?;
    connection.ping(&[inside::ECHO, 0]).await?;
    let mut samples = Samples::default();
    for number in 0..WARM_UP + count {
        let began = Instant::now();
        connection.ping(&[0]).await?;
        if number >= WARM_UP {
            samples.add(began.elapsed());
        }
    }
    connection.close().await?;
    Ok(samples.summary())
}

/// A connection from nothing, with one byte there and back.
async fn connect(target: &Target, pod: &Pod, count: usize, transport: Transport) -> Result<Value, Failure> {
    let mut samples = Samples::default();
    for _ in 0..count {
        let began = Instant::now();
        let address = Address::of_port(target, &pod.id, PORT).await?;
        let mut connection = Connection::open(transport, &address, PORT).await?;
        connection.ping(&[inside::ECHO, 0]).await?;
        samples.add(began.elapsed());
        connection.close().await?;
    }
    Ok(samples.summary())
}

/// One more connection of a SPDY session that stands, with one byte there and back: what each connection to a forwarded
/// port of kubectl costs.
async fn one_more(target: &Target, pod: &Pod, count: usize) -> Result<Value, Failure> {
    let address = Address::of_port(target, &pod.id, PORT).await?;
    let mut forward = Forward::open(&address).await?;
    let mut samples = Samples::default();
    for number in 0..WARM_UP + count {
        let began = Instant::now();
        let mut connection = forward.connect(PORT).await?;
        connection.write(&[inside::ECHO, 0]).await?;
        connection.read().await?;
        if number >= WARM_UP {
            samples.add(began.elapsed());
        }
        forward = connection.disconnect().await?;
    }
    Ok(samples.summary())
}

//! Figures about the node, taken when somebody asks for them: pods and containers by state, operations under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};
use tripod_engine::Engine;

/// Looks at an engine for as long as there is one.
#[derive(Debug)]
pub(crate) struct Node {
    engine: Weak<Engine>,
}

impl Node {
    /// Looks at this engine.
    pub(crate) fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::downgrade(engine) }
    }
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(engine) = self.engine.upgrade() else { return Ok(()) };

        let mut pods = BTreeMap::from([("ready", 0), ("not_ready", 0_i64)]);
        for pod in engine.pods() {
            *pods.entry(if pod.is_ready() { "ready" } else { "not_ready" }).or_default() += 1;
        }
        gauges(&mut encoder, ["tripod_pods", "Pods by state"], None, "state", pods)?;

        let mut containers = BTreeMap::from([("created", 0), ("running", 0), ("exited", 0_i64)]);
        for container in engine.containers() {
            *containers.entry(container.state.name()).or_default() += 1;
        }
        gauges(&mut encoder, ["tripod_containers", "Containers by state"], None, "state", containers)?;

        // The longest first, so the first of a stage is its oldest.
        let operations = engine.operations();
        let (mut counts, mut ages) = (BTreeMap::new(), BTreeMap::new());
        for operation in &operations {
            *counts.entry(operation.stage).or_insert(0_i64) += 1;
            ages.entry(operation.stage).or_insert(operation.in_stage_for.as_secs_f64());
        }
        gauges(&mut encoder, ["tripod_operations", "Operations under way by stage"], None, "stage", counts)?;
        let help = "Time that the longest operation has been in a stage";
        gauges(&mut encoder, ["tripod_operation_stage", help], Some(&Unit::Seconds), "stage", ages)
    }
}

fn gauges<N>(
    encoder: &mut DescriptorEncoder<'_>,
    [name, help]: [&str; 2],
    unit: Option<&Unit>,
    label: &str,
    values: BTreeMap<&'static str, N>,
) -> Result<(), std::fmt::Error>
where
    N: Copy,
    ConstGauge<N>: EncodeMetric,
{
    // A metric without values would be a description of nothing.
    let Some(first) = values.values().next() else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, help, unit, ConstGauge::new(*first).metric_type())?;
    for (value, number) in values {
        ConstGauge::new(number).encode(metric.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

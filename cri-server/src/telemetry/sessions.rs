//! Figures about exec, attach and port-forward, taken when somebody asks for them.

use std::sync::{Arc, Weak};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tripod_streaming::Server;

/// Looks at a streaming server for as long as there is one.
#[derive(Debug)]
pub(crate) struct SessionCounts {
    server: Weak<Server>,
}

impl SessionCounts {
    /// Looks at this server.
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        Self { server: Arc::downgrade(server) }
    }
}

impl Collector for SessionCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(server) = self.server.upgrade() else { return Ok(()) };
        let help = "Sessions of exec, attach and port-forward that last";
        let mut active = encoder.encode_descriptor("tripod_sessions_active", help, None, MetricType::Gauge)?;
        let sessions = server.sessions();
        for session in &sessions {
            let labels = [("kind", session.kind), ("transport", session.transport)];
            let count = i64::try_from(session.active).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(active.encode_family(&labels)?)?;
        }
        let help = "Sessions of exec, attach and port-forward since the start";
        let mut total = encoder.encode_descriptor("tripod_sessions", help, None, MetricType::Counter)?;
        for session in &sessions {
            let labels = [("kind", session.kind), ("transport", session.transport)];
            ConstCounter::new(session.total).encode(total.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

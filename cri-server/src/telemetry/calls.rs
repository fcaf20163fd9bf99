//! A layer around all services: each call with its outcome and duration in the log and in the metrics.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use tonic::{
    Code,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

/// Bounds of the histogram in seconds: from a read answered from memory to a pull.
const BOUNDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0, 60.0];

/// Calls that are asked every second by every kubelet; their failures are a client's business.
const ROUTINE: [Code; 3] = [Code::Ok, Code::NotFound, Code::Unimplemented];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    call: String,
    code: CodeLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CodeLabel(Code);

impl EncodeLabelValue for CodeLabel {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        format!("{:?}", self.0).as_str().encode(encoder)
    }
}

/// Counts of calls and their durations.
#[derive(Debug, Clone)]
pub(crate) struct CallMetrics {
    calls: Family<Outcome, Counter>,
    seconds: Family<Call, Histogram, fn() -> Histogram>,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self { calls: Family::default(), seconds: Family::new_with_constructor(|| Histogram::new(BOUNDS)) }
    }
}

impl CallMetrics {
    /// Makes them visible.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("tripod_cri_calls", "CRI calls by outcome", self.calls.clone());
        let help = "Time from a CRI call to its answer; of a stream, to its begin";
        registry.register_with_unit("tripod_cri_call_duration", help, Unit::Seconds, self.seconds.clone());
    }

    fn count(&self, call: &str, code: Code, took: Duration) {
        self.calls.get_or_create(&Outcome { call: call.to_owned(), code: CodeLabel(code) }).inc();
        self.seconds.get_or_create(&Call { call: call.to_owned() }).observe(took.as_secs_f64());
    }
}

/// The layer.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    metrics: CallMetrics,
}

impl Calls {
    /// Counts into these metrics.
    pub(crate) fn new(metrics: CallMetrics) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for Calls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted { inner, metrics: self.metrics.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    metrics: CallMetrics,
}

impl<S, In, Out> Service<Request<In>> for Counted<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
    S::Error: std::fmt::Display,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let path = request.uri().path();
        let call = path.rsplit('/').next().unwrap_or(path).to_owned();
        let guard = Hangup { call: Some(call), started: Instant::now(), metrics: self.metrics.clone() };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let result = answer.await;
            guard.answered(&result);
            result
        })
    }
}

/// Notices both ends of a call: an answer, or a client that has hung up, which drops the call.
struct Hangup {
    call: Option<String>,
    started: Instant,
    metrics: CallMetrics,
}

impl Hangup {
    fn answered<Out, Error: std::fmt::Display>(mut self, result: &Result<Response<Out>, Error>) {
        let Some(call) = self.call.take() else { return };
        let took = self.started.elapsed();
        // An error travels in the headers, a success in the trailers that follow the answer.
        let status = result.as_ref().ok().and_then(|response| tonic::Status::from_header_map(response.headers()));
        let (code, message) = match (&status, result) {
            (Some(status), _) => (status.code(), status.message().to_owned()),
            (None, Ok(_)) => (Code::Ok, String::new()),
            (None, Err(error)) => (Code::Internal, error.to_string()),
        };
        self.metrics.count(&call, code, took);
        let ms = took.as_secs_f64() * 1e3;
        if ROUTINE.contains(&code) {
            tracing::debug!(target: "tripod::call", call, ?code, ms, message, "answered");
        } else {
            tracing::warn!(target: "tripod::call", call, ?code, ms, message, "failed");
        }
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let took = self.started.elapsed();
            self.metrics.count(&call, Code::Cancelled, took);
            tracing::info!(target: "tripod::call", call, ms = took.as_secs_f64() * 1e3, "the client hung up");
        }
    }
}

#[cfg(test)]
mod tests;

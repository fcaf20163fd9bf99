use prometheus_client::{encoding::text::encode, registry::Registry};
use tonic::{
    Status,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

use super::{CallMetrics, Calls};

async fn call(metrics: &CallMetrics, outcome: Result<(), Status>) {
    let inner = tower::service_fn(move |_: Request<()>| {
        let outcome = outcome.clone();
        async move {
            let mut response = Response::new(());
            if let Err(status) = outcome {
                status.add_header(response.headers_mut()).unwrap();
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let request = Request::builder().uri("/runtime.v1.RuntimeService/Version").body(()).unwrap();
    Calls::new(metrics.clone()).layer(inner).call(request).await.unwrap();
}

#[tokio::test]
async fn calls_are_counted_by_outcome() {
    let metrics = CallMetrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    call(&metrics, Ok(())).await;
    call(&metrics, Ok(())).await;
    call(&metrics, Err(Status::not_found("no pod"))).await;
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("tripod_cri_calls_total{call=\"Version\",code=\"Ok\"} 2"), "{text}");
    assert!(text.contains("tripod_cri_calls_total{call=\"Version\",code=\"NotFound\"} 1"), "{text}");
    assert!(text.contains("tripod_cri_call_duration_seconds_count{call=\"Version\"} 3"), "{text}");
}

#[tokio::test]
async fn a_client_that_hangs_up_is_counted() {
    let metrics = CallMetrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let inner =
        tower::service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, std::convert::Infallible>>());
    let request = Request::builder().uri("/runtime.v1.RuntimeService/ExecSync").body(()).unwrap();
    drop(Calls::new(metrics.clone()).layer(inner).call(request));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("tripod_cri_calls_total{call=\"ExecSync\",code=\"Cancelled\"} 1"), "{text}");
}

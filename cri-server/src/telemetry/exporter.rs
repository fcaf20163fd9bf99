//! `/metrics` over HTTP, for Prometheus.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Bytes, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::Semaphore};

/// What the format is called.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a client may take to say what it wants.
const HEADER_LIMIT: Duration = Duration::from_secs(10);

/// Connections at a time. Whoever wants more waits.
const CONNECTIONS: usize = 16;

/// A listener that serves the registry's figures.
#[derive(Debug)]
pub(crate) struct Exporter {
    listener: TcpListener,
    registry: Arc<Registry>,
}

impl Exporter {
    /// Takes the address.
    pub(crate) async fn bind(address: SocketAddr, registry: Registry) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, registry: Arc::new(registry) })
    }

    /// Where it listens.
    #[cfg(test)]
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: at once would be a busy loop.
                    tracing::warn!(%error, "the metrics listener cannot accept a connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let registry = Arc::clone(&self.registry);
            tokio::spawn(async move {
                let service = service_fn(|request| std::future::ready(answer(&request, &registry)));
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).keep_alive(false);
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "a connection to the metrics listener ended early");
                }
                drop(permit);
            });
        }
    }
}

fn answer<B>(request: &Request<B>, registry: &Registry) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    let plain = |status, text: &'static str| Response::builder().status(status).body(Full::new(Bytes::from(text)));
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => Response::builder().header(header::CONTENT_TYPE, CONTENT_TYPE).body(Full::new(Bytes::from(text))),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded\n"),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{metrics::counter::Counter, registry::Registry};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::Exporter;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn serves_the_registry_and_nothing_else() {
        let mut registry = Registry::default();
        registry.register("answers", "Answers", Counter::<u64>::default());
        let exporter = Exporter::bind("127.0.0.1:0".parse().unwrap(), registry).await.unwrap();
        let address = exporter.address().unwrap();
        let server = tokio::spawn(exporter.serve());
        assert!(get(address, "/metrics").await.contains("answers_total 0"));
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }
}

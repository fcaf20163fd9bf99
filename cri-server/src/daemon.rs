//! The life of a daemon: take the socket, take up what runs, serve, and end without touching a container.

use std::{io, path::Path, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tripod_cri_api::{
    own::images_server::ImagesServer,
    v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer},
};

use crate::{
    compose::{Parts, compose},
    config::Config,
    deadline::Deadlines,
    image::ImageServer,
    images::Images,
    notify::notify,
    open_files,
    own::OwnImages,
    runtime::{Runtime, Sessions},
    socket::{Socket, SocketError},
    telemetry::{CallMetrics, Calls, Exporter, ImageFigures, Node, SessionCounts},
};

/// The longest message either way, as the kubelet has it.
const MAX_MESSAGE: usize = 16 << 20;

/// How long calls may take to end once the daemon has been asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// there is no socket to serve on
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// something that the daemon is made of did not open
    #[error(transparent)]
    Engine(#[from] tripod_engine::Error),
    /// the metrics listener has no address
    #[error("listen for metrics on {address} (metrics.address): {source}")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// Why it is not to be had.
        source: io::Error,
    },
    /// the gRPC server ended
    #[error("serve CRI calls: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// clients of exec, attach and port-forward have nowhere to come to
    #[error(transparent)]
    Streaming(#[from] tripod_streaming::Error),
    /// signals cannot be heard
    #[error("listen for signals: {0}")]
    Signals(io::Error),
}

/// A daemon that serves.
#[derive(Debug)]
pub struct Daemon {
    socket: Socket,
    terminate: Signal,
    interrupt: Signal,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    streams: JoinHandle<()>,
    exporter: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts one; it answers when this returns. Clients that connect earlier wait.
    pub async fn start(config: &Config) -> Result<Self, DaemonError> {
        // Before anybody can know that there is a daemon to be ended.
        let terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
        let (socket, listener) = Socket::bind(&config.socket).await?;
        let metrics = CallMetrics::default();
        let parts = compose(config).await?;
        // The isolators have taken down by now what containers are to have.
        open_files::raise();
        let backend = Arc::new(Sessions::new(Arc::clone(&parts.engine)));
        let streaming = Arc::new(tripod_streaming::Server::bind(&config.streaming, backend).await?);
        let exporter = exporter(config, &metrics, &parts, &streaming).await?;
        let (stop, stopped) = watch::channel(false);
        let streaming_address = streaming.address();
        let streams = tokio::spawn(Arc::clone(&streaming).serve(until(stopped.clone())));
        let server = tokio::spawn(serve(listener, parts, streaming, config, metrics, stopped));
        tracing::info!(
            socket = %config.socket.display(),
            root = %config.root.display(),
            streaming = %streaming_address,
            version = env!("CARGO_PKG_VERSION"),
            "tripod serves"
        );
        Ok(Self { socket, terminate, interrupt, stop, server, streams, exporter })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Serves until somebody asks the process to end (SIGTERM, SIGINT). Containers go on.
    pub async fn run(mut self) -> Result<(), DaemonError> {
        notify("READY=1");
        tokio::select! {
            ended = &mut self.server => return ended.unwrap_or(Ok(())).map_err(DaemonError::from),
            _ = self.terminate.recv() => tracing::info!("SIGTERM: tripod ends, containers go on"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: tripod ends, containers go on"),
        }
        notify("STOPPING=1");
        self.stop().await
    }

    /// Takes no more calls, gives those under way a moment, and ends.
    pub async fn stop(mut self) -> Result<(), DaemonError> {
        self.stop.send_replace(true);
        if let Some(exporter) = self.exporter.take() {
            exporter.abort();
        }
        let ended = tokio::time::timeout(GRACE, &mut self.server).await;
        // It has a limit of its own for its sessions, of which the last began with a call.
        let _ = (&mut self.streams).await;
        match ended {
            Ok(ended) => ended.unwrap_or(Ok(())).map_err(DaemonError::from),
            Err(_) => {
                tracing::info!("calls under way are cut off");
                self.server.abort();
                Ok(())
            }
        }
    }
}

async fn exporter(
    config: &Config,
    metrics: &CallMetrics,
    parts: &Parts,
    streaming: &Arc<tripod_streaming::Server>,
) -> Result<Option<JoinHandle<()>>, DaemonError> {
    let Some(address) = config.metrics.address else { return Ok(None) };
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    registry.register_collector(Box::new(Node::new(&parts.engine)));
    registry.register_collector(Box::new(SessionCounts::new(streaming)));
    registry.register_collector(Box::new(ImageFigures::new(parts.images.service())));
    let bound = Exporter::bind(address, registry).await;
    let exporter = bound.map_err(|source| DaemonError::Metrics { address, source })?;
    tracing::info!(%address, "metrics are served");
    Ok(Some(tokio::spawn(exporter.serve())))
}

fn serve(
    listener: UnixListener,
    parts: Parts,
    streaming: Arc<tripod_streaming::Server>,
    config: &Config,
    metrics: CallMetrics,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + Send + use<> {
    let effective = serde_json::to_value(config).unwrap_or_default();
    let image = image_service(parts.images.clone(), parts.handlers.keys().cloned().collect());
    let own = own_service(&parts.images);
    let runtime = RuntimeServiceServer::new(Runtime::new(parts, streaming, effective, stopped.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Server::builder()
        .layer(Calls::new(metrics))
        .layer(Deadlines)
        .add_service(runtime)
        .add_service(image)
        .add_service(own)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), until(stopped))
}

/// What CRI has about images, ready to be served.
pub(crate) fn image_service(images: Images, handlers: Vec<String>) -> ImageServiceServer<ImageServer> {
    ImageServiceServer::new(ImageServer::new(images, handlers))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// What tripod's own commands ask about images, ready to be served.
pub(crate) fn own_service(images: &Images) -> ImagesServer<OwnImages> {
    ImagesServer::new(OwnImages::new(images.service().clone()))
}

/// Resolves when the daemon ends.
pub(crate) async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the daemon is gone, which is as good.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

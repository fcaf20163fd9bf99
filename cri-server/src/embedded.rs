//! A daemon inside a command's process, for as long as the command takes: what commands use where none answers.
//!
//! For `tripod run` it is a whole daemon over the configured folders, so images that were pulled once stay; only its
//! socket is its own. For what is about images alone it is the store and nothing else: pods are left alone.

use std::{error::Error, io::ErrorKind, os::unix::net::UnixStream, path::Path};

use async_trait::async_trait;
use tokio::{sync::watch, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, transport::Server};
use tripod_cli::{Embed, Embedded, Local};
use tripod_cri_api::v1::{
    StatusRequest, StatusResponse, VersionRequest, VersionResponse,
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};
use tripod_image_service::ImageService;

use crate::{
    Daemon,
    config::{Config, Overrides},
    daemon::{image_service, own_service, until},
    images::Images,
    runtime::version,
    socket::Socket,
    status_code::Reply,
};

/// Starts daemons inside this process.
#[derive(Debug, Clone, Copy)]
pub struct InProcess;

type Failure = Box<dyn Error + Send + Sync>;

#[async_trait]
impl Embed for InProcess {
    async fn start(&self, local: Local) -> Result<Box<dyn Embedded>, Failure> {
        Ok(Box::new(Inside(Daemon::start(&config(local)?).await?)))
    }

    async fn store(&self, local: Local) -> Result<Box<dyn Embedded>, Failure> {
        let config = config(local)?;
        let (socket, listener) = Socket::bind(&config.socket).await?;
        let images = Images::new(ImageService::open(config.image_service()).await?).await?;
        let (service, own) = (image_service(images.clone(), Vec::new()), own_service(&images));
        let (stop, stopped) = watch::channel(false);
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(NoPods { images }))
            .add_service(service)
            .add_service(own)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), until(stopped));
        Ok(Box::new(Store { socket, stop, server: tokio::spawn(server) }))
    }
}

fn config(local: Local) -> Result<Config, Failure> {
    let Local { config, root, state } = local;
    let mut config = Config::load(config.as_deref(), Overrides { root, state, ..Overrides::default() })?;
    clear(&config.state);
    config.socket = config.state.join(format!("run-{}.sock", std::process::id()));
    config.metrics.address = None;
    Ok(config)
}

/// Removes the sockets of commands that were killed, at whatever step of making one.
fn clear(state: &Path) {
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let owner = name.to_str().and_then(|name| name.strip_prefix("run-")?.split('.').next()?.parse::<u32>().ok());
        // One that is just being made refuses connections, too.
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists())
            && UnixStream::connect(&path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

struct Inside(Daemon);

#[async_trait]
impl Embedded for Inside {
    fn socket(&self) -> &Path {
        self.0.socket()
    }

    async fn stop(self: Box<Self>) {
        if let Err(error) = self.0.stop().await {
            tracing::warn!(%error, "the daemon of this command did not end well");
        }
    }
}

/// The store alone.
struct Store {
    socket: Socket,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

#[async_trait]
impl Embedded for Store {
    fn socket(&self) -> &Path {
        self.socket.path()
    }

    async fn stop(mut self: Box<Self>) {
        self.stop.send_replace(true);
        // The one client is gone by now.
        if tokio::time::timeout(std::time::Duration::from_secs(2), &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

/// What clients ask of a runtime before they come to images: who it is, and how far pulls are.
#[derive(Debug)]
struct NoPods {
    images: Images,
}

#[tonic::async_trait]
impl RuntimeService for NoPods {
    async fn version(&self, _: Request<VersionRequest>) -> Reply<VersionResponse> {
        Ok(Response::new(version()))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Reply<StatusResponse> {
        let pulls = serde_json::to_string(&self.images.pulls()).unwrap_or_default();
        Ok(Response::new(StatusResponse { info: [("pulls".to_owned(), pulls)].into(), ..StatusResponse::default() }))
    }
}

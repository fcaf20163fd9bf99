//! The listener, its URLs, and the life of every connection.

mod address;
mod http;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    AttachRequest, Backend, Config, ExecRequest, PortForwardRequest, Sessions, control::Control, figures::Figures,
    request::Request, session, socket::Socket, stream::Stream, tls, token::Tokens,
};

/// Time for a TLS handshake and again for the headers of a request.
const GREETING: Duration = Duration::from_secs(10);
/// Connections at the same time beyond those of sessions: clients that have not made their request yet.
const GREETED: usize = 256;
/// Size of the headers of a request, at most.
const HEADERS: usize = 32 << 10;
/// Time for sessions to end when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// Pause after the host could not give another connection, most often because file descriptors have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not one of the host's.
    #[error("cannot listen for streams on {address}: set another address in the configuration's section `streaming`")]
    Listen {
        /// From the configuration.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use {path} for streams: name PEM files in the configuration's section `streaming.tls`")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The base URL is none.
    #[error("base_url {url:?} in the configuration's section `streaming` does not begin with http:// or https://")]
    BaseUrl {
        /// From the configuration.
        url: String,
    },
}

/// Why there is no URL for a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Clients ask for URLs and do not come.
    #[error("{limit} URLs wait for their clients already: use one of those, or try again in {seconds} seconds")]
    TooMany {
        /// From the configuration.
        limit: usize,
        /// After which a URL that nobody came to makes room.
        seconds: u64,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The streaming server.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    base: String,
    tls: Option<Acceptor>,
    backend: Arc<dyn Backend>,
    tokens: Tokens<Request>,
    sessions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    figures: Figures,
}

struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Server {
    /// Listens; clients are answered once [`Server::serve`] runs.
    ///
    /// # Errors
    /// The address or the certificates cannot be used.
    pub async fn bind(config: &Config, backend: Arc<dyn Backend>) -> Result<Self, Error> {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?.map(Acceptor);
        let failed = |source| Error::Listen { address: config.address, source };
        let listener = TcpListener::bind(config.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let sessions = config.max_sessions.min(Semaphore::MAX_PERMITS - GREETED);
        Ok(Self {
            base: address::base_url(config, address).await?,
            listener,
            address,
            tls,
            backend,
            tokens: Tokens::new(Duration::from_secs(config.token_seconds), config.max_tokens),
            sessions: Arc::new(Semaphore::new(sessions)),
            connections: Arc::new(Semaphore::new(sessions + GREETED)),
            figures: Figures::default(),
            config: config.clone(),
        })
    }

    /// The address that the server listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL at which a client gets a command.
    ///
    /// # Errors
    /// Too many URLs wait, or the request makes no sense.
    pub fn exec_url(&self, request: ExecRequest) -> Result<String, UrlError> {
        self.url(Request::Exec(request))
    }

    /// A URL at which a client is connected to a container's first process.
    ///
    /// # Errors
    /// Too many URLs wait, or the request makes no sense.
    pub fn attach_url(&self, request: AttachRequest) -> Result<String, UrlError> {
        self.url(Request::Attach(request))
    }

    /// A URL at which a client reaches the ports of a pod.
    ///
    /// # Errors
    /// Too many URLs wait, or the request makes no sense.
    pub fn port_forward_url(&self, request: PortForwardRequest) -> Result<String, UrlError> {
        self.url(Request::PortForward(request))
    }

    /// Counts of sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Sessions> {
        self.figures.read()
    }

    /// URLs that wait for their clients.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.tokens.len()
    }

    /// Serves clients until `stop` resolves, then ends all sessions and returns once they have ended.
    pub async fn serve(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.accept() => match accepted {
                    Ok((stream, permit)) => {
                        let (server, stopped) = (self.clone(), stopped.clone());
                        connections.spawn(async move {
                            let _permit = permit;
                            server.connection(stream, stopped).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection for streams");
                        sleep(EXHAUSTED).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        stopping.send_replace(true);
        let ended = timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!(sessions = connections.len(), "sessions that do not end are cut off");
        }
        connections.shutdown().await;
    }

    fn url(&self, request: Request) -> Result<String, UrlError> {
        if let Some(fault) = request.fault() {
            return Err(UrlError::Invalid(fault));
        }
        let kind = request.kind().name();
        let (limit, seconds) = (self.config.max_tokens, self.config.token_seconds);
        let token = self.tokens.put(request).ok_or(UrlError::TooMany { limit, seconds })?;
        Ok(format!("{}/{kind}/{token}", self.base))
    }

    async fn accept(&self) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = self.connections.clone().acquire_owned().await.map_err(io::Error::other)?;
        Ok((self.listener.accept().await?.0, permit))
    }

    /// One connection: a request, and the session that it is upgraded to.
    async fn connection(self: Arc<Self>, stream: TcpStream, stop: watch::Receiver<bool>) {
        let peer = stream.peer_addr().ok();
        let Ok(socket) = Socket::new(stream) else { return };
        let stream = match &self.tls {
            None => Stream::clear(socket.clone()),
            Some(Acceptor(tls)) => match timeout(GREETING, tls.accept(socket.clone())).await {
                Ok(Ok(stream)) => Stream::tls(stream),
                Ok(Err(error)) => return tracing::debug!(?peer, %error, "a client of streams failed its TLS handshake"),
                Err(_) => return tracing::debug!(?peer, "a client of streams did not finish its TLS handshake"),
            },
        };
        let upgrade = http::Slot::default();
        let service = http::service(self.clone(), upgrade.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(GREETING)
            .max_buf_size(HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut stopped = stop.clone();
        tokio::select! {
            served = connection => if let Err(error) = served {
                return tracing::debug!(?peer, %error, "a client of streams made no request");
            },
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let Some(accepted) = upgrade.take() else { return };
        let (request, agreed, _permit) = (accepted.request, accepted.agreed, accepted.permit);
        let Some(stream) = http::upgraded(accepted.upgrade).await else {
            return tracing::debug!(?peer, "a client of streams left before its session");
        };
        let _active = self.figures.begin(request.kind(), agreed.transport);
        let control = Control::new(&self.config, socket, stop);
        session::run(self.backend.clone(), request, agreed, stream, control).await;
    }
}

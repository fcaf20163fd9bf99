//! The SPDY connection that all forwarded connections share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    header::{CONNECTION, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::{sync::Mutex, time::timeout};
use tripod_cri_api::v1::PortForwardRequest;
use tripod_streaming::spdy::{Config, Connection, Ended, Error, Headers, Role, Stream};

use crate::{
    CliError, Client,
    args::Streaming,
    stream::dial::{CONNECT, dial},
};

const PROTOCOL: &str = "portforward.k8s.io";

/// Bytes of a refusal that are shown.
const REFUSAL: usize = 4 << 10;

/// How long the daemon may take to give a URL.
const ANSWER: Duration = Duration::from_secs(10);

/// A way into a pod.
#[derive(Debug)]
pub(super) struct Tunnel {
    client: Client,
    pod: String,
    ports: Vec<i32>,
    files: Streaming,
    /// Counts pairs of streams: the other side finds the two of a pair by it.
    requests: AtomicUsize,
    session: Mutex<Option<Session>>,
}

/// A connection to the streaming server.
#[derive(Debug, Clone)]
struct Session {
    connection: Connection,
    end: End,
}

/// The end of a session is told once for all that were forwarded by it.
#[derive(Debug, Clone, Default)]
pub(super) struct End(Arc<AtomicBool>);

/// The streams of one forwarded connection.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) data: Stream,
    pub(super) error: Stream,
    pub(super) end: End,
}

// === impl End ===

impl End {
    pub(super) fn tell(&self, why: &Ended) {
        if !self.0.swap(true, Ordering::Relaxed) {
            eprintln!("tripod: the session broke off ({why}), and with it all connections; the next opens another");
        }
    }
}

// === impl Tunnel ===

impl Tunnel {
    /// Connects to a pod.
    pub(super) async fn open(client: Client, pod: String, ports: Vec<u16>, files: Streaming) -> Result<Self, CliError> {
        let ports = ports.into_iter().map(i32::from).collect();
        let tunnel = Self { client, pod, ports, files, requests: AtomicUsize::new(0), session: Mutex::new(None) };
        tunnel.session().await?;
        Ok(tunnel)
    }

    /// Opens streams to a port.
    pub(super) async fn pair(&self, port: u16) -> Result<Pair, CliError> {
        let wrong = |error: &Error| CliError::Stream(format!("open a stream to the pod: {error}"));
        let mut tried = false;
        loop {
            let session = self.session().await?;
            match self.streams(&session, port).await {
                Ok(pair) => return Ok(pair),
                Err(Error::Ended(_) | Error::GoingAway | Error::IdsExhausted) if !tried => {
                    tried = true;
                    // Somebody else may have found out before and have connected again.
                    self.session.lock().await.take_if(|now| Arc::ptr_eq(&now.end.0, &session.end.0));
                }
                Err(error) => return Err(wrong(&error)),
            }
        }
    }

    async fn streams(&self, session: &Session, port: u16) -> Result<Pair, Error> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed).to_string();
        let port = port.to_string();
        let headers =
            |kind| Headers::from_iter([("streamtype", kind), ("port", port.as_str()), ("requestid", request.as_str())]);
        // Errors come from there only.
        let error = session.connection.open(&headers("error"), true).await?;
        let data = session.connection.open(&headers("data"), false).await?;
        Ok(Pair { data, error, end: session.end.clone() })
    }

    /// The session, opened if there is none.
    async fn session(&self) -> Result<Session, CliError> {
        let mut session = self.session.lock().await;
        match &*session {
            Some(session) => Ok(session.clone()),
            None => {
                let connection = self.connect().await?;
                Ok(session.insert(Session { connection, end: End::default() }).clone())
            }
        }
    }

    async fn connect(&self) -> Result<Connection, CliError> {
        let step = || format!("forward ports to pod {}", self.pod);
        let request = PortForwardRequest { pod_sandbox_id: self.pod.clone(), port: self.ports.clone() };
        let answer = timeout(ANSWER, self.client.runtime.clone().port_forward(request)).await;
        let answer = answer.map_err(|_| CliError::Stream(format!("{}: the daemon does not answer", step())))?;
        let url = answer.map_err(CliError::call(step()))?.into_inner().url;
        let wrong = |why: String| CliError::Stream(format!("{}: open the stream {url}: {why}", step()));
        let uri: Uri = url.parse().map_err(|error| wrong(format!("{error}")))?;
        let wire = dial(&uri, &self.files).await?;
        let upgrade = async {
            let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(wire)).await?;
            tokio::spawn(driver.with_upgrades());
            let answer = sender.send_request(request_for(&uri)).await?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = answer.status();
                let body = Limited::new(answer.into_body(), REFUSAL).collect().await;
                let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let text = format!("{status} {}", String::from_utf8_lossy(&body).trim());
                return Ok(Err(wrong(text.trim_end().to_owned())));
            }
            hyper::upgrade::on(answer).await.map(Ok)
        };
        let upgraded = match timeout(CONNECT, upgrade).await {
            Ok(outcome) => outcome.map_err(|error| wrong(error.to_string()))??,
            Err(_) => return Err(wrong(format!("no answer within {} s", CONNECT.as_secs()))),
        };
        // The other side opens no streams.
        let (connection, _) = Connection::new(TokioIo::new(upgraded), Role::Client, Config::default());
        Ok(connection)
    }
}

fn request_for(uri: &Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::POST;
    let host = uri.authority().and_then(|authority| authority.as_str().parse().ok());
    request.headers_mut().extend(host.map(|host| (HOST, host)));
    let headers = [
        (CONNECTION, "Upgrade"),
        (UPGRADE, "SPDY/3.1"),
        (hyper::header::HeaderName::from_static("x-stream-protocol-version"), PROTOCOL),
    ];
    for (name, value) in headers {
        request.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

//! The HTTP side: a request with a token is upgraded to a session or answered with a text that says why not.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONNECTION, CONTENT_TYPE},
    service::Service,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use crate::{
    request::{Kind, Request},
    stream::Stream,
    upgrade::{Agreed, Offer, Rejection},
};

/// A request that was granted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) request: Request,
    pub(super) agreed: Agreed,
    pub(super) upgrade: OnUpgrade,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Where the service leaves what it has granted, for the task of the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Accepted>>>);

impl Slot {
    pub(super) fn take(&self) -> Option<Accepted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, accepted: Accepted) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted);
    }
}

/// Answers the requests of one connection.
pub(super) struct Answers {
    server: Arc<Server>,
    slot: Slot,
}

pub(super) fn service(server: Arc<Server>, slot: Slot) -> Answers {
    Answers { server, slot }
}

impl Service<hyper::Request<Incoming>> for Answers {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let response = match self.server.grant(request) {
            Ok(accepted) => {
                let response = response(StatusCode::SWITCHING_PROTOCOLS, &accepted.agreed.headers, Bytes::new());
                self.slot.put(accepted);
                response
            }
            Err(rejection) => {
                let mut message = rejection.message;
                message.push('\n');
                let mut headers = rejection.headers;
                headers.push((CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()));
                // Said here alone: beside `Upgrade` it makes Go's clients drop the whole header.
                headers.push((CONNECTION, "close".to_owned()));
                response(rejection.status, &headers, message.into())
            }
        };
        ready(Ok(response))
    }
}

impl Server {
    fn grant(&self, mut http: hyper::Request<Incoming>) -> Result<Accepted, Rejection> {
        let unknown = || {
            let message = "no session waits at this URL: each works once and for a short time; ask for a new one";
            Rejection::new(StatusCode::NOT_FOUND, message)
        };
        let (kind, token) = place(http.uri().path()).ok_or_else(unknown)?;
        if ![Method::GET, Method::POST].contains(http.method()) {
            let mut rejection = Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "sessions begin with GET or POST");
            rejection.headers.push((ALLOW, "GET, POST".to_owned()));
            return Err(rejection);
        }
        let request = self.tokens.take(token).ok_or_else(unknown)?;
        if request.kind() != kind {
            return Err(unknown());
        }
        let offer = Offer::read(http.method(), http.headers())?;
        let agreed = match &request {
            Request::Exec(_) | Request::Attach(_) => offer.command()?,
            Request::PortForward(request) => offer.forward(!request.ports.is_empty())?,
        };
        let permit = self.sessions.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{} sessions last already: end one and try again", self.config.max_sessions);
            Rejection::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        Ok(Accepted { request, agreed, upgrade: hyper::upgrade::on(&mut http), permit })
    }
}

/// Kind and token of a path. Before them may be what the base URL has and a proxy leaves there.
fn place(path: &str) -> Option<(Kind, &str)> {
    let (before, token) = path.rsplit_once('/')?;
    let (_, kind) = before.rsplit_once('/')?;
    let kind = [Kind::Exec, Kind::Attach, Kind::PortForward].into_iter().find(|known| known.name() == kind)?;
    Some((kind, token))
}

fn response(status: StatusCode, headers: &[(hyper::header::HeaderName, String)], body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    for (name, value) in headers {
        // All are words of the protocols; one that came from the client was compared with those.
        if let Ok(value) = value.parse() {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The bytes of the connection after the answer; none if the client has left meanwhile.
pub(super) async fn upgraded(upgrade: OnUpgrade) -> Option<Stream> {
    let parts = upgrade.await.ok()?.downcast::<TokioIo<Stream>>().ok()?;
    let mut stream = parts.io.into_inner();
    stream.put_back(parts.read_buf);
    Some(stream)
}

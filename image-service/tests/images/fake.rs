//! A registry in this process that does what it is told, good or bad, and remembers what it was asked.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, header::HeaderMap, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

use super::fixture::{Image, OCI_MANIFEST};

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// How many with this method and path came before.
    pub before: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// What is answered.
pub enum Reply {
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Promises so many bytes, sends these, breaks the connection.
    Break(u16, Vec<(&'static str, String)>, usize, Vec<u8>),
    /// One byte after the other, with a pause between.
    Drip(Vec<u8>, Duration),
    /// So many bytes at once, with a pause before each.
    Slow(u16, Vec<(&'static str, String)>, Vec<u8>, usize, Duration),
    Endless,
    Never,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }

    pub fn ok(bytes: &[u8]) -> Self {
        Self::Answer(200, Vec::new(), bytes.to_vec())
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;
type Error = Box<dyn std::error::Error + Send + Sync>;

pub struct Fake {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn new(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, handler): (Arc<Mutex<Vec<Seen>>>, Arc<Handler>) = (Arc::default(), Arc::new(handler));
        let all = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (all, handler) = (Arc::clone(&all), Arc::clone(&handler));
                let service = service_fn(move |request| answer(request, Arc::clone(&all), Arc::clone(&handler)));
                connections
                    .spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
            }
        });
        Self { address, seen, task }
    }

    /// A registry with one image, where `handler` may answer first.
    pub async fn with(image: &Image, handler: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let image = image.clone();
        Self::new(move |seen| handler(seen).unwrap_or_else(|| serve(&image, seen))).await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How often each path was asked for by GET.
    pub fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for seen in self.seen().into_iter().filter(|seen| seen.method == "GET") {
            *counts.entry(seen.path).or_default() += 1;
        }
        counts
    }

    pub fn name(&self) -> String {
        format!("{}/test/image:v1", self.address)
    }
}

/// What a good registry answers.
pub fn serve(image: &Image, seen: &Seen) -> Reply {
    let manifest = |bytes: &[u8]| {
        let headers = vec![("content-type", OCI_MANIFEST.to_owned()), ("docker-content-digest", image.digest())];
        Reply::Answer(200, headers, bytes.to_vec())
    };
    if seen.path.contains("/manifests/") {
        return manifest(&image.manifest);
    }
    let wanted = seen.path.rsplit('/').next().unwrap();
    let blob = image.blobs().into_iter().find(|(digest, _)| digest.to_string() == wanted);
    let Some((_, blob)) = blob else { return Reply::status(404) };
    let ranges = ("accept-ranges", "bytes".to_owned());
    match range(seen, blob.len()) {
        None => Reply::Answer(200, vec![ranges], blob),
        Some((from, to)) => {
            let range = format!("bytes {from}-{to}/{}", blob.len());
            Reply::Answer(206, vec![ranges, ("content-range", range)], blob[from..=to].to_vec())
        }
    }
}

/// First and last byte that are asked for.
pub fn range(seen: &Seen, length: usize) -> Option<(usize, usize)> {
    let (from, to) = seen.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    Some((from.parse().unwrap(), if to.is_empty() { length - 1 } else { to.parse().unwrap() }))
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    all: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<Handler>,
) -> Result<Response<UnsyncBoxBody<Bytes, Error>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
    let seen = {
        let mut all = all.lock().unwrap();
        let before = all.iter().filter(|seen| seen.method == method && seen.path == path).count();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let seen = Seen { method, path, query, headers: head.headers, body, before };
        all.push(seen.clone());
        seen
    };
    let full = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
    let (status, headers, body) = match handler(&seen) {
        Reply::Answer(status, headers, bytes) => (status, headers, full(bytes)),
        Reply::Break(status, mut headers, length, bytes) => {
            headers.push(("content-length", length.to_string()));
            let parts: [Result<Frame<Bytes>, Error>; 2] = [Ok(Frame::data(bytes.into())), Err("on purpose".into())];
            // Between the two, the first has to leave.
            let parts = stream::iter(parts).enumerate().then(|(index, part)| async move {
                tokio::time::sleep(Duration::from_millis(50 * index as u64)).await;
                part
            });
            (status, headers, StreamBody::new(parts).boxed_unsync())
        }
        Reply::Drip(bytes, pause) => {
            let headers = vec![("content-length", bytes.len().to_string())];
            let drops = stream::iter(bytes).then(move |byte| async move {
                tokio::time::sleep(pause).await;
                Ok(Frame::data(Bytes::from(vec![byte])))
            });
            (200, headers, StreamBody::new(drops).boxed_unsync())
        }
        Reply::Slow(status, mut headers, bytes, size, pause) => {
            headers.push(("content-length", bytes.len().to_string()));
            let chunks: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            let chunks = stream::iter(chunks).then(move |chunk| async move {
                tokio::time::sleep(pause).await;
                Ok(Frame::data(chunk))
            });
            (status, headers, StreamBody::new(chunks).boxed_unsync())
        }
        Reply::Endless => {
            let chunk = Bytes::from(vec![b' '; 64 << 10]);
            let endless = stream::repeat_with(move || Ok(Frame::data(chunk.clone())));
            (200, Vec::new(), StreamBody::new(endless).boxed_unsync())
        }
        Reply::Never => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(body).unwrap())
}

//! A registry in memory, which counts what it is asked for and fails as it is told.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LINK, WWW_AUTHENTICATE},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{Image, digest, image::MANIFEST};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Answer = Response<Body>;

/// How a blob or manifest is served.
#[derive(Debug, Clone, Default)]
pub enum Fault {
    /// As it should be.
    #[default]
    None,
    /// Other bytes of the same length.
    Corrupt,
    /// The connection ends in the middle.
    Truncated,
    /// This status.
    Status(u16),
    /// In small pieces with this pause between them.
    Slow(Duration),
    /// Half of it, and then nothing more.
    Stalled,
}

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<String, Bytes>,
    /// By `REPOSITORY:REFERENCE`.
    manifests: HashMap<String, Bytes>,
    /// By digest of a blob, or `REPOSITORY:REFERENCE`.
    faults: HashMap<String, Fault>,
    /// Requests of bodies by the same names.
    served: BTreeMap<String, usize>,
    /// `USER:PASSWORD` that is asked for, as base64.
    credentials: Option<String>,
    /// How many entries a page has of the lists of what refers to a manifest, if there are such lists.
    referrers: Option<usize>,
}

/// A registry on loopback.
#[derive(Debug, Clone)]
pub struct Registry {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

impl State {
    /// A page of the list of what refers to a manifest. The query says after which of the entries it begins; types are
    /// not sorted out, which a registry need not do.
    fn referrers(&mut self, repository: &str, digest: &str, query: &str) -> Answer {
        let name = format!("{repository}:referrers");
        let Some(page) = self.referrers else { return status(404) };
        if let Some(Fault::Status(code)) = self.faults.get(&name) {
            return status(*code);
        }
        let parameter = |wanted: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == wanted))
                .map(|(_, value)| value)
        };
        let last = parameter("last").unwrap_or_default();
        let mut entries: Vec<Value> = Vec::new();
        let mut listed: Vec<_> =
            self.manifests.iter().filter(|(name, _)| name.starts_with(&format!("{repository}:"))).collect();
        listed.sort_unstable();
        let mut next = None;
        for (name, content) in listed {
            let own = &name[repository.len() + 1..];
            let manifest: Value = serde_json::from_slice(content).unwrap_or_default();
            if manifest["subject"]["digest"] != digest || own != crate::digest(content) || own <= last {
                continue;
            }
            if entries.len() == page {
                next = entries.last().map(|entry| entry["digest"].clone());
                break;
            }
            entries.push(json!({
                "mediaType": MANIFEST, "digest": own, "size": content.len(),
                "artifactType": manifest["artifactType"], "annotations": manifest["annotations"],
            }));
        }
        *self.served.entry(name).or_default() += 1;
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
        let mut answer = Response::builder().header(CONTENT_TYPE, INDEX);
        if let Some(next) = next.as_ref().and_then(Value::as_str) {
            let target = format!("/v2/{repository}/referrers/{digest}?last={next}");
            answer = answer.header(LINK, format!("<{target}>; rel=\"next\""));
        }
        answer.body(body(list.into(), &Fault::None)).expect("an answer")
    }
}

impl Registry {
    /// Starts one; it ends with the test.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let registry = Self { state: Arc::default(), address: listener.local_addr().expect("an address") };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let registry = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| {
                        let answer = registry.answer(&request);
                        async { Ok::<_, Infallible>(answer) }
                    });
                    // A client that goes away in the middle is part of the tests.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        });
        registry
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends pulls of `host` here, by a folder in containerd's format.
    pub fn serve_as(&self, host: &str, certs_dir: &Path) {
        hosts_toml(host, self.address, certs_dir);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an image under `REPOSITORY:TAG` and its digest, which is returned.
    pub fn push(&self, name: &str, image: &Image) -> String {
        for layer in &image.layers {
            self.push_blob(&layer.digest, layer.blob.clone());
        }
        let config = image.config_blob();
        self.push_blob(&digest(&config), config);
        self.push_manifest(name, image.manifest())
    }

    /// Keeps a manifest, whatever it says.
    pub fn push_manifest(&self, name: &str, manifest: Bytes) -> String {
        let (repository, _) = name.rsplit_once(':').expect("REPOSITORY:TAG");
        let digest = digest(&manifest);
        let mut state = self.lock();
        state.manifests.insert(format!("{repository}:{digest}"), manifest.clone());
        state.manifests.insert(name.to_owned(), manifest);
        digest
    }

    /// Keeps a blob under a digest that it may not have.
    pub fn push_blob(&self, digest: &str, blob: Bytes) {
        self.lock().blobs.insert(digest.to_owned(), blob);
    }

    /// Serves a blob (by digest) or a manifest (by `REPOSITORY:REFERENCE`) in this way from now on.
    pub fn fail(&self, what: &str, fault: Fault) {
        self.lock().faults.insert(what.to_owned(), fault);
    }

    /// Asks for this user and password from now on.
    pub fn protect(&self, user: &str, password: &str) {
        use base64::prelude::{BASE64_STANDARD, Engine};
        self.lock().credentials = Some(BASE64_STANDARD.encode(format!("{user}:{password}")));
    }

    /// Lists what refers to a manifest from now on, in pages of so many entries.
    pub fn list_referrers(&self, page: usize) {
        self.lock().referrers = Some(page);
    }

    /// How often a blob or manifest was sent.
    pub fn served(&self, what: &str) -> usize {
        self.lock().served.get(what).copied().unwrap_or(0)
    }

    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let mut state = self.lock();
        if let Some(wanted) = &state.credentials {
            let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            if given.and_then(|value| value.strip_prefix("Basic ")) != Some(wanted) {
                let mut answer = status(401);
                answer.headers_mut().insert(WWW_AUTHENTICATE, "Basic realm=\"test\"".parse().expect("a header"));
                return answer;
            }
        }
        let path = request.uri().path();
        if ["/v2", "/v2/"].contains(&path) {
            return status(200);
        }
        let Some((repository, kind, reference)) = split(path) else { return status(404) };
        if kind == "referrers" {
            return state.referrers(repository, reference, request.uri().query().unwrap_or_default());
        }
        let (name, content, media_type) = if kind == "blobs" {
            (reference.to_owned(), state.blobs.get(reference).cloned(), "application/octet-stream".to_owned())
        } else {
            let name = format!("{repository}:{reference}");
            let manifest = state.manifests.get(&name).cloned();
            let media_type = manifest.as_ref().map_or_else(|| MANIFEST.to_owned(), |manifest| media_type(manifest));
            (name, manifest, media_type)
        };
        let Some(content) = content else { return status(404) };
        let fault = state.faults.get(&name).cloned().unwrap_or_default();
        if let Fault::Status(code) = fault {
            return status(code);
        }
        let begin = Response::builder().header(CONTENT_TYPE, media_type).header(CONTENT_LENGTH, content.len());
        let begin = if kind == "blobs" { begin } else { begin.header("Docker-Content-Digest", digest(&content)) };
        if request.method() == Method::HEAD {
            return begin.body(empty()).expect("an answer");
        }
        *state.served.entry(name).or_default() += 1;
        begin.body(body(content, &fault)).expect("an answer")
    }
}

/// `/v2/REPOSITORY/(blobs|manifests)/REFERENCE`.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let (rest, reference) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    Some((repository, kind, reference))
}

fn media_type(manifest: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(manifest).ok();
    parsed.and_then(|value| Some(value.get("mediaType")?.as_str()?.to_owned())).unwrap_or_else(|| MANIFEST.to_owned())
}

fn status(code: u16) -> Answer {
    Response::builder()
        .status(StatusCode::from_u16(code).expect("a status"))
        .body(Full::new(Bytes::from_static(b"{\"errors\":[]}")).map_err(|never| match never {}).boxed_unsync())
        .expect("an answer")
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

fn body(content: Bytes, fault: &Fault) -> Body {
    let half = content.slice(..content.len() / 2);
    let one = |part: Bytes, then: Option<std::io::Error>| {
        let frames = std::iter::once(Ok(Frame::data(part))).chain(then.map(Err));
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    };
    match fault {
        Fault::Corrupt => one(content.iter().map(|byte| byte ^ 0x55).collect(), None),
        Fault::Truncated => one(half, Some(std::io::Error::other("cut off"))),
        Fault::Slow(pause) => slow(content, *pause),
        Fault::Stalled => {
            let forever = stream::unfold(Some(half), |part| async move {
                match part {
                    Some(part) => Some((Ok(Frame::data(part)), None)),
                    None => std::future::pending().await,
                }
            });
            StreamBody::new(forever).boxed_unsync()
        }
        Fault::None | Fault::Status(_) => one(content, None),
    }
}

/// Twenty pieces.
fn slow(content: Bytes, pause: Duration) -> Body {
    let size = content.len().div_ceil(20).max(1);
    let pieces = stream::unfold(content, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let piece = rest.split_to(size.min(rest.len()));
        Some((Ok(Frame::data(piece)), rest))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Sends pulls of `host` to an address.
pub(crate) fn hosts_toml(host: &str, address: SocketAddr, certs_dir: &Path) {
    let folder = certs_dir.join(host);
    std::fs::create_dir_all(&folder).expect("make the folder of a registry");
    std::fs::write(folder.join("hosts.toml"), format!("server = \"http://{address}\"\n")).expect("write hosts.toml");
}

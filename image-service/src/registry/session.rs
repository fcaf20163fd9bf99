//! One pull's conversation with a registry and its mirrors.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    Registries,
    auth::{Credentials, RegistryAuth, bearer},
    body::{Body, BodyError},
    error::{NetworkError, Problem, RegistryError},
    hosts::{Host, hosts},
};
use crate::{digest::Digest, manifest::Descriptor, reference::Reference};

const MAX_REDIRECTS: usize = 10;
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Manifests that we can read.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A manifest or index as a registry sent it.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub digest: Digest,
    pub content_type: String,
    pub bytes: Vec<u8>,
}

pub(super) struct Place {
    pub host: Host,
    pub client: Client,
    pub credentials: Credentials,
    /// The header that got the last request through. Waiting for it is how parallel layers share one token.
    pub authorization: Mutex<Option<HeaderValue>>,
    dead: AtomicBool,
}

pub(crate) struct Session {
    pub(super) registries: Arc<Registries>,
    pub(super) reference: Reference,
    places: Vec<Place>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("reference", &self.reference).finish_non_exhaustive()
    }
}

/// What a request is for, beyond its URL.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub method: &'a Method,
    /// Below the repository.
    pub path: &'a str,
    pub accept: Option<&'static str>,
    /// First byte that is wanted.
    pub from: u64,
    /// The answer is checked against a digest, so that it may come over plain HTTP after a redirect.
    pub verified: bool,
}

impl Session {
    pub(super) fn new(
        registries: Arc<Registries>,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Self, RegistryError> {
        let failed = |problem| RegistryError {
            what: format!("cannot read the settings for {reference}"),
            host: reference.registry().to_owned(),
            problem,
        };
        let credentials = Credentials::new(auth).map_err(|error| failed(error.into()))?;
        let found = hosts(&registries.certs_dir, reference.registry()).map_err(|error| failed(error.into()))?;
        let mut places = Vec::new();
        for host in found {
            let client = registries.clients.get(&host, &registries.timeouts).map_err(failed)?;
            let own = auth.is_some_and(|auth| auth.is_for(&host.name(), host.upstream));
            let credentials = if own { credentials.clone() } else { Credentials::Anonymous };
            let authorization = match &credentials {
                Credentials::RegistryToken(token) => bearer(token),
                _ => None,
            };
            places.push(Place {
                host,
                client,
                credentials,
                authorization: Mutex::new(authorization),
                dead: AtomicBool::new(false),
            });
        }
        Ok(Self { registries, reference: reference.clone(), places })
    }

    /// The registry that the image names.
    pub(crate) fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// The digest that a tag has now, if the registry tells it without the manifest.
    pub(crate) async fn head(&self, manifest: &str) -> Result<Option<Digest>, RegistryError> {
        let path = format!("manifests/{manifest}");
        let ask = Ask { method: &Method::HEAD, path: &path, accept: Some(ACCEPTED), from: 0, verified: false };
        let response = self.first(&ask, &format!("cannot look up {}", self.reference), true).await?;
        let digest = response.headers().get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        Ok(digest.and_then(|digest| digest.parse().ok()))
    }

    /// A manifest by tag or digest. With a digest, the content is held against it.
    pub(crate) async fn manifest(&self, manifest: &str, expected: Option<&Digest>) -> Result<Resolved, RegistryError> {
        let path = format!("manifests/{manifest}");
        let ask =
            Ask { method: &Method::GET, path: &path, accept: Some(ACCEPTED), from: 0, verified: expected.is_some() };
        let what = format!("cannot get the manifest {manifest} of {}", self.reference);
        let limit = self.registries.limits.manifest_bytes;
        let (bytes, content_type) = self.small(&ask, &what, limit, expected.is_none()).await?;
        let digest = match expected {
            Some(expected) => {
                self.check(expected, &bytes, &what)?;
                expected.clone()
            }
            None => Digest::of(&bytes),
        };
        Ok(Resolved { digest, content_type, bytes })
    }

    /// A small blob, checked.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let path = format!("blobs/{}", descriptor.digest);
        let ask = Ask { method: &Method::GET, path: &path, accept: None, from: 0, verified: true };
        let what = format!("cannot get the configuration {} of {}", descriptor.digest, self.reference);
        let limit = self.registries.limits.config_bytes.min(descriptor.size);
        if descriptor.size > self.registries.limits.config_bytes {
            let problem = Problem::TooLarge(self.registries.limits.config_bytes);
            return Err(RegistryError { what, host: self.reference.registry().to_owned(), problem });
        }
        let (bytes, _) = self.small(&ask, &what, limit, false).await?;
        self.check(&descriptor.digest, &bytes, &what)?;
        Ok(bytes)
    }

    fn check(&self, expected: &Digest, bytes: &[u8], what: &str) -> Result<(), RegistryError> {
        if expected.matches(bytes) {
            return Ok(());
        }
        let problem = Problem::Digest { got: Digest::of(bytes), expected: expected.clone() };
        Err(RegistryError { what: what.to_owned(), host: self.reference.registry().to_owned(), problem })
    }

    /// Gets something that fits into memory, again if it breaks in the middle.
    async fn small(
        &self,
        ask: &Ask<'_>,
        what: &str,
        limit: u64,
        resolve: bool,
    ) -> Result<(Vec<u8>, String), RegistryError> {
        let timeouts = &self.registries.timeouts;
        let mut attempt = 0;
        loop {
            let response = self.first(ask, what, resolve).await?;
            let host = response.url().host_str().unwrap_or_default().to_owned();
            let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            attempt += 1;
            let problem = match Body::new(response, limit, timeouts).bytes().await {
                Ok(bytes) => return Ok((bytes, content_type)),
                Err(BodyError::TooLarge) => Problem::TooLarge(limit),
                Err(_) if attempt < timeouts.attempts => {
                    tokio::time::sleep(timeouts.backoff(attempt - 1)).await;
                    continue;
                }
                Err(error) => self.problem(error, attempt),
            };
            return Err(RegistryError { what: what.to_owned(), host, problem });
        }
    }

    pub(super) fn problem(&self, error: BodyError, attempts: u32) -> Problem {
        let timeouts = &self.registries.timeouts;
        match error {
            BodyError::Network(source) => Problem::Network { attempts, source },
            BodyError::Stalled => {
                Problem::Stalled { rate: timeouts.minimum_rate, seconds: timeouts.stall_seconds, attempts }
            }
            BodyError::TooLarge => Problem::TooLarge(0),
        }
    }

    /// Asks one host after the other until one has it.
    pub(super) async fn first(&self, ask: &Ask<'_>, what: &str, resolve: bool) -> Result<Response, RegistryError> {
        let mut last: Option<RegistryError> = None;
        let able: Vec<&Place> =
            self.places.iter().filter(|place| if resolve { place.host.resolve } else { place.host.pull }).collect();
        for (index, place) in able.iter().enumerate() {
            let only = index + 1 == able.len();
            if place.dead.load(Ordering::Relaxed) && !only {
                continue;
            }
            match self.ask(place, ask, only).await {
                Ok(response) => return Ok(response),
                Err(problem) => {
                    if matches!(problem, Problem::Network { .. } | Problem::Tls(_)) {
                        place.dead.store(true, Ordering::Relaxed);
                    }
                    let error = RegistryError { what: what.to_owned(), host: place.host.name(), problem };
                    if !only {
                        tracing::debug!(mirror = place.host.name(), %error, cause = %error.problem, "mirror failed");
                    }
                    // An answer says more than a host that cannot be reached.
                    let unreachable = matches!(error.problem, Problem::Network { .. });
                    if last.is_none() || !unreachable {
                        last = Some(error);
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| RegistryError {
            what: what.to_owned(),
            host: self.reference.registry().to_owned(),
            problem: Problem::NoHost(if resolve { "resolve" } else { "pull" }),
        }))
    }

    /// Asks one host, with authentication and retries.
    async fn ask(&self, place: &Place, ask: &Ask<'_>, persist: bool) -> Result<Response, Problem> {
        let timeouts = &self.registries.timeouts;
        let (mut attempt, mut challenged) = (0, false);
        loop {
            let authorization = place.authorization.lock().await.clone();
            attempt += 1;
            let mut wait = timeouts.backoff(attempt - 1);
            let problem = match self.follow(place, ask, authorization.as_ref()).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !challenged => {
                    challenged = true;
                    attempt -= 1;
                    self.authorize(place, &response, authorization).await?;
                    continue;
                }
                Ok(response) => {
                    wait = retry_after(response.headers()).unwrap_or(wait);
                    refusal(response, &place.credentials, attempt).await
                }
                Err(Failure::Network(source)) => Problem::Network { attempts: attempt, source },
                Err(Failure::Fatal(problem)) => return Err(problem),
            };
            let again = match &problem {
                Problem::Busy { .. } => true,
                // A mirror at which nobody answers is skipped; the registry itself is worth waiting for.
                Problem::Network { source, .. } => persist || !source.connect,
                _ => false,
            };
            if !again || attempt >= timeouts.attempts {
                return Err(problem);
            }
            tracing::debug!(host = place.host.name(), path = ask.path, %problem, ?wait, "request will be repeated");
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a request and follows redirects. Credentials and the host's own headers go to the host only.
    async fn follow(&self, place: &Place, ask: &Ask<'_>, auth: Option<&HeaderValue>) -> Result<Response, Failure> {
        let mut url = self.url(place, ask.path);
        for _ in 0..MAX_REDIRECTS {
            let mut headers = HeaderMap::new();
            if place.host.same_origin(&url) {
                headers = place.host.headers.clone();
                if let Some(auth) = auth {
                    headers.insert(AUTHORIZATION, auth.clone());
                }
            }
            if let Some(accept) = ask.accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            if ask.from > 0 {
                headers.insert(
                    RANGE,
                    HeaderValue::try_from(format!("bytes={}-", ask.from)).map_err(|_| bad_redirect(&url))?,
                );
            }
            let client = self.client(place, &url).map_err(Failure::Fatal)?;
            let request = client.request(ask.method.clone(), url.clone()).headers(headers).send();
            let response = tokio::time::timeout(self.registries.timeouts.response(), request)
                .await
                .map_err(|_| Failure::Network(NetworkError::timeout("an answer")))?
                .map_err(|error| Failure::Network(error.into()))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok()).ok_or_else(|| bad_redirect(&url))?;
            let downgrade = url.scheme() == "https" && next.scheme() != "https" && !ask.verified;
            if downgrade || !matches!(next.scheme(), "http" | "https") {
                return Err(bad_redirect(&url));
            }
            url = next;
        }
        Err(Failure::Fatal(Problem::Redirect(format!("more than {MAX_REDIRECTS} redirects"))))
    }

    /// The client for a URL that a host led to. The one for plain HTTP trusts no certificates at all.
    pub(super) fn client(&self, place: &Place, url: &Url) -> Result<Client, Problem> {
        if url.scheme() == place.host.base.scheme() || url.scheme() == "http" {
            return Ok(place.client.clone());
        }
        let secure = Host { base: url.clone(), ..place.host.clone() };
        self.registries.clients.get(&secure, &self.registries.timeouts)
    }

    fn url(&self, place: &Place, path: &str) -> Url {
        let mut url = place.host.base.clone();
        url.set_path(&format!("{}/{}/{path}", place.host.base.path(), self.reference.repository()));
        if !place.host.upstream {
            // Tells a mirror of several registries which one is meant.
            url.query_pairs_mut().append_pair("ns", self.reference.registry());
        }
        url
    }
}

enum Failure {
    /// May work the next time.
    Network(NetworkError),
    /// Will not.
    Fatal(Problem),
}

fn bad_redirect(url: &Url) -> Failure {
    let from = super::hosts::authority(url);
    Failure::Fatal(Problem::Redirect(format!("{from} redirects to where we cannot or must not go")))
}

pub(super) fn remedy(credentials: &Credentials) -> &'static str {
    match credentials {
        Credentials::Anonymous => {
            "the image does not exist or needs credentials: check its name, or give a pull secret"
        }
        _ => "the credentials are wrong, or may not pull this image: check the pull secret",
    }
}

/// What an answer that is no success means.
async fn refusal(response: Response, credentials: &Credentials, attempts: u32) -> Problem {
    let status = response.status();
    let detail = detail(response).await;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Problem::Denied { status, detail, remedy: remedy(credentials) }
        }
        StatusCode::NOT_FOUND => Problem::NotFound(detail),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Problem::Busy { status, detail, attempts },
        _ if status.is_server_error() => Problem::Busy { status, detail, attempts },
        _ => Problem::Status { status, detail },
    }
}

/// The registry's own words, if it sent any.
pub(super) async fn detail(response: Response) -> String {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let timeouts = crate::config::Timeouts { stall_seconds: 5, ..Default::default() };
    let body = Body::new(response, 64 << 10, &timeouts).bytes().await.unwrap_or_default();
    let Ok(answer) = serde_json::from_slice::<Answer>(&body) else { return String::new() };
    let words = answer.errors.into_iter().take(3).map(|item| format!("{}: {}", item.code, item.message));
    let text: String = words.collect::<Vec<_>>().join("; ").chars().filter(|c| !c.is_control()).take(300).collect();
    if text.is_empty() { text } else { format!(", {text}") }
}

/// How long the registry asks us to wait, within reason.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

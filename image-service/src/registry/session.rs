//! One pull's conversation with a registry and its mirrors.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::{
    Client, Method, Response,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::sync::Mutex;

use super::{
    Registries,
    ask::Ask,
    auth::{Credentials, RegistryAuth, bearer},
    body::{Body, BodyError},
    error::{Problem, RegistryError},
    hosts::{Host, authority, hosts},
};
use crate::{digest::Digest, manifest::Descriptor, reference::Reference};

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
    /// Nobody answers.
    dead: AtomicBool,
    /// What came from it was not what was asked for, or did not come whole.
    liar: AtomicBool,
}

pub(crate) struct Session {
    pub(super) registries: Arc<Registries>,
    pub(super) reference: Reference,
    places: Vec<Place>,
    /// By index, which places sent parts of a blob.
    served: Served,
}

impl Place {
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Remembers who cannot be reached.
    pub(super) fn note(&self, problem: &Problem) {
        if matches!(problem, Problem::Network { .. } | Problem::Tls(_)) {
            self.dead.store(true, Ordering::Relaxed);
        }
    }
}

type Served = std::sync::Mutex<HashMap<Digest, BTreeSet<usize>>>;

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl Place {
    /// Whether it may be asked what a tag means, or for something by its digest.
    fn is_able(&self, resolve: bool) -> bool {
        if resolve { self.host.resolve } else { self.host.pull }
    }
}

/// Something that need not be there.
fn optional(got: Result<Vec<u8>, RegistryError>) -> Result<Option<Vec<u8>>, RegistryError> {
    match got {
        Ok(bytes) => Ok(Some(bytes)),
        Err(RegistryError { problem: Problem::NotFound(_), .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Session {
    /// A conversation with a server that is no registry: signatures lie there by the names of repositories.
    pub(super) fn lookaside(
        registries: Arc<Registries>,
        reference: &Reference,
        base: &str,
    ) -> Result<Self, RegistryError> {
        let failed = |problem| RegistryError {
            what: format!("cannot look for signatures of {reference}"),
            host: base.to_owned(),
            problem,
        };
        let host = Host::at(base).map_err(|error| failed(error.into()))?;
        let place = Place {
            client: registries.clients.get(&host).map_err(failed)?,
            host,
            credentials: Credentials::Anonymous,
            authorization: Mutex::new(None),
            dead: AtomicBool::new(false),
            liar: AtomicBool::new(false),
        };
        Ok(Self { registries, reference: reference.clone(), places: vec![place], served: Served::default() })
    }

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
            let client = registries.clients.get(&host).map_err(failed)?;
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
                liar: AtomicBool::new(false),
            });
        }
        Ok(Self { registries, reference: reference.clone(), places, served: Served::default() })
    }

    /// The registry that the image names.
    pub(crate) fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// The digest that a tag has now, if the registry tells it without the manifest.
    pub(crate) async fn head(&self, manifest: &str) -> Result<Option<Digest>, RegistryError> {
        let path = format!("manifests/{manifest}");
        let ask = Ask { accept: Some(ACCEPTED), verified: false, ..Ask::new(&Method::HEAD, &path) };
        let response = match self.first(&ask, &format!("cannot look up {}", self.reference), true).await {
            Ok((_, response)) => response,
            // Some know no HEAD.
            Err(RegistryError { problem: Problem::Status { .. }, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let digest = response.headers().get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        Ok(digest.and_then(|digest| digest.parse().ok()))
    }

    /// A manifest by tag or digest. With a digest, the content is held against it.
    pub(crate) async fn manifest(&self, manifest: &str, expected: Option<&Digest>) -> Result<Resolved, RegistryError> {
        let path = format!("manifests/{manifest}");
        let ask = Ask { accept: Some(ACCEPTED), verified: expected.is_some(), ..Ask::new(&Method::GET, &path) };
        let what = format!("cannot get the manifest {manifest} of {}", self.reference);
        let limit = self.registries.limits.manifest_bytes;
        let (bytes, content_type) = self.small(&ask, &what, limit, expected).await?;
        let digest = expected.cloned().unwrap_or_else(|| Digest::of(&bytes));
        Ok(Resolved { digest, content_type, bytes })
    }

    /// A small blob, checked.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let path = format!("blobs/{}", descriptor.digest);
        let ask = Ask::new(&Method::GET, &path);
        let what = format!("cannot get the configuration {} of {}", descriptor.digest, self.reference);
        let limit = self.registries.limits.config_bytes.min(descriptor.size);
        if descriptor.size > self.registries.limits.config_bytes {
            let problem = Problem::TooLarge(self.registries.limits.config_bytes);
            return Err(RegistryError { what, host: self.reference.registry().to_owned(), problem });
        }
        match self.small(&ask, &what, limit, Some(&descriptor.digest)).await {
            Ok((bytes, _)) => Ok(bytes),
            Err(RegistryError { what, host, problem: Problem::TooLarge(_) }) => {
                let problem = Problem::Length { got: descriptor.size + 1, expected: descriptor.size };
                Err(RegistryError { what, host, problem })
            }
            Err(error) => Err(error),
        }
    }

    /// What is attached to an image by a tag of its own, if there is such a tag.
    pub(crate) async fn attached(&self, tag: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        optional(self.manifest(tag, None).await.map(|resolved| resolved.bytes))
    }

    /// The manifest of something that refers to an image, if what was listed is still there.
    pub(crate) async fn referrer(&self, digest: &Digest) -> Result<Option<Vec<u8>>, RegistryError> {
        optional(self.manifest(&digest.to_string(), Some(digest)).await.map(|resolved| resolved.bytes))
    }

    /// What a signature says, checked against its digest.
    pub(crate) async fn signature(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let path = format!("blobs/{}", blob.digest);
        let what = format!("cannot get the signature {} of {}", blob.digest, self.reference);
        let (bytes, _) = self.small(&Ask::new(&Method::GET, &path), &what, limit, Some(&blob.digest)).await?;
        Ok(bytes)
    }

    /// Something beside the repository, if it is there; for places that are no registries.
    pub(crate) async fn beside(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, RegistryError> {
        let ask = Ask { verified: false, ..Ask::new(&Method::GET, path) };
        let what = format!("cannot get the signature {path} of {}", self.reference);
        optional(self.small(&ask, &what, limit, None).await.map(|(bytes, _)| bytes))
    }

    /// Gets something that fits into memory: again if it breaks in the middle, elsewhere if it is not what was wanted, or
    /// never comes whole.
    /// Without a digest, it is a tag that is to be resolved.
    async fn small(
        &self,
        ask: &Ask<'_>,
        what: &str,
        limit: u64,
        expected: Option<&Digest>,
    ) -> Result<(Vec<u8>, String), RegistryError> {
        let timeouts = &self.registries.timeouts;
        let mut attempt = 0;
        loop {
            let (place, response) = self.first(ask, what, expected.is_none()).await?;
            let host = authority(response.url());
            let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            attempt += 1;
            let problem = match Body::new(response, limit, timeouts).bytes().await {
                Ok(bytes) => match expected {
                    Some(expected) if !expected.matches(&bytes) => {
                        Problem::Digest { got: Digest::of(&bytes), expected: expected.clone() }
                    }
                    _ => return Ok((bytes, content_type)),
                },
                Err(BodyError::TooLarge) => Problem::TooLarge(limit),
                Err(_) if attempt < timeouts.attempts => {
                    tokio::time::sleep(timeouts.backoff(attempt - 1)).await;
                    continue;
                }
                Err(error) => self.problem(error, attempt),
            };
            let error = RegistryError { what: what.to_owned(), host, problem };
            // What a tag means is for the first to say that answers.
            let broken = matches!(error.problem, Problem::Network { .. } | Problem::Stalled { .. });
            if !((broken || expected.is_some()) && self.distrust(&[place], expected.is_none())) {
                return Err(error);
            }
            tracing::warn!(%error, cause = %error.problem, "another host is asked");
            attempt = 0;
        }
    }

    /// Notes that a place sent a part of a blob.
    pub(super) fn note_served(&self, blob: &Digest, place: usize) {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.entry(blob.clone()).or_default().insert(place);
    }

    /// Asks those who sent a blob that is not what its digest says no more in this pull. Gives whether there is
    /// somebody else.
    pub(crate) fn distrust_senders(&self, blob: &Digest) -> bool {
        let senders = self.served.lock().unwrap_or_else(PoisonError::into_inner).remove(blob);
        self.distrust(&senders.unwrap_or_default().into_iter().collect::<Vec<_>>(), false)
    }

    /// Asks these no more while there is somebody else, and gives whether there is: to tell what a tag means, or to send.
    pub(super) fn distrust(&self, liars: &[usize], resolve: bool) -> bool {
        for place in liars.iter().filter_map(|index| self.places.get(*index)) {
            place.liar.store(true, Ordering::Relaxed);
        }
        let honest = |place: &Place| place.is_able(resolve) && !place.liar.load(Ordering::Relaxed);
        !liars.is_empty() && self.places.iter().any(honest)
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

    /// Asks one host after the other until one has it. Gives the index of that place too.
    pub(super) async fn first(
        &self,
        ask: &Ask<'_>,
        what: &str,
        resolve: bool,
    ) -> Result<(usize, Response), RegistryError> {
        let mut failures: Vec<(String, Problem)> = Vec::new();
        let able = self.able(resolve);
        for (position, (index, place)) in able.iter().enumerate() {
            let only = position + 1 == able.len();
            if place.is_dead() && !only {
                continue;
            }
            match self.ask(place, ask, only).await {
                Ok(response) => return Ok((*index, response)),
                Err(problem) => {
                    place.note(&problem);
                    if !only {
                        tracing::debug!(mirror = place.host.name(), what, %problem, "mirror failed");
                    }
                    failures.push((place.host.name(), problem));
                }
            }
        }
        Err(self.outcome(what, failures, resolve))
    }

    /// Who can be asked, in their order. The last is waited for, the others are mirrors.
    pub(super) fn able(&self, resolve: bool) -> Vec<(usize, &Place)> {
        let mut able: Vec<_> = self.places.iter().enumerate().filter(|(_, place)| place.is_able(resolve)).collect();
        if able.iter().any(|(_, place)| !place.liar.load(Ordering::Relaxed)) {
            able.retain(|(_, place)| !place.liar.load(Ordering::Relaxed));
        }
        able
    }

    /// One error for all hosts that were asked in vain: the last that answered counts, the others are mentioned.
    pub(super) fn outcome(&self, what: &str, mut failures: Vec<(String, Problem)>, resolve: bool) -> RegistryError {
        let what = what.to_owned();
        // An answer says more than a host that cannot be reached.
        let answered = failures.iter().rposition(|(_, problem)| !matches!(problem, Problem::Network { .. }));
        let Some(index) = answered.or_else(|| failures.len().checked_sub(1)) else {
            let problem = Problem::NoHost(if resolve { "resolve" } else { "pull" });
            return RegistryError { what, host: self.reference.registry().to_owned(), problem };
        };
        let (mut host, problem) = failures.remove(index);
        if !failures.is_empty() {
            let others = failures.iter().map(|(host, problem)| {
                let text: String = problem.to_string().chars().take(120).collect();
                format!("{host}: {text}")
            });
            host = format!("{host} (in vain, too: {})", others.collect::<Vec<_>>().join("; "));
        }
        RegistryError { what, host, problem }
    }
}

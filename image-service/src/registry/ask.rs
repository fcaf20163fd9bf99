//! One request to one host: authentication, retries, redirects.

use std::time::{Duration, SystemTime};

use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE},
};

use super::{
    answer::{refusal, retry_after},
    error::{NetworkError, Problem},
    hosts::{Host, authority},
    session::{Place, Session},
};

const MAX_REDIRECTS: usize = 10;
/// A mirror that wants us to wait longer than this is left alone while there is somebody else to ask.
const PATIENCE_WITH_MIRRORS: Duration = Duration::from_secs(3);

/// What a request is for, beyond its URL.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub method: &'a Method,
    /// Below the repository; beside it where it begins with `@`.
    pub path: &'a str,
    /// Where a list goes on, in place of what the path says; of the host's own.
    pub at: Option<&'a Url>,
    pub accept: Option<&'static str>,
    /// First byte that is wanted.
    pub from: u64,
    /// Last byte that is wanted, if not all that follow.
    pub to: Option<u64>,
    /// The answer is checked against a digest, so that it may come over plain HTTP after a redirect.
    pub verified: bool,
}

impl<'a> Ask<'a> {
    /// For all of something that has a digest.
    pub(super) fn new(method: &'a Method, path: &'a str) -> Self {
        Self { method, path, at: None, accept: None, from: 0, to: None, verified: true }
    }

    fn range(&self) -> Option<HeaderValue> {
        let text = match (self.from, self.to) {
            (0, None) => return None,
            (from, None) => format!("bytes={from}-"),
            (from, Some(to)) => format!("bytes={from}-{to}"),
        };
        HeaderValue::try_from(text).ok()
    }
}

impl Session {
    /// Asks one host, with authentication and retries.
    pub(super) async fn ask(&self, place: &Place, ask: &Ask<'_>, persist: bool) -> Result<Response, Problem> {
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
                    if let Some(asked) = retry_after(response.headers(), SystemTime::now()) {
                        // Not all nodes at the same moment.
                        wait = asked + wait / 4;
                    }
                    refusal(response, place, attempt).await
                }
                Err(Failure::Network(source)) => match source.remedy {
                    Some(remedy) => return Err(Problem::Tls(format!("{source}: {remedy}"))),
                    None => Problem::Network { attempts: attempt, source },
                },
                Err(Failure::Fatal(problem)) => return Err(problem),
            };
            let again = match &problem {
                Problem::Busy { .. } => persist || wait <= PATIENCE_WITH_MIRRORS,
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
        let mut url = ask.at.cloned().unwrap_or_else(|| self.url(place, ask.path));
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
            if let Some(range) = ask.range() {
                headers.insert(RANGE, range);
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
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| bad_redirect(&url, "without saying where to"))?;
            if !matches!(next.scheme(), "http" | "https") {
                return Err(bad_redirect(&url, "to something that is not HTTP"));
            }
            if url.scheme() == "https" && next.scheme() != "https" && !ask.verified {
                return Err(bad_redirect(&url, "from HTTPS to HTTP, where anybody could answer"));
            }
            url = next;
        }
        Err(bad_redirect(&url, &format!("more than {MAX_REDIRECTS} times")))
    }

    /// The client for a URL that a host led to. What was set for the host's own certificates, ours for it and a pass on
    /// its own, is for nobody else; authorities that it may be signed by are likely to have signed its neighbours'.
    pub(super) fn client(&self, place: &Place, url: &Url) -> Result<Client, Problem> {
        let same_host = place.host.base.host_str() == url.host_str();
        let nothing_special = !place.host.skip_verify && place.host.client.is_empty();
        let same_scheme = place.host.base.scheme() == url.scheme();
        if url.scheme() == "http" || same_scheme && (same_host || nothing_special) {
            return Ok(place.client.clone());
        }
        let mut other = Host { base: url.clone(), ..place.host.clone() };
        if !same_host {
            other.skip_verify = false;
            other.client.clear();
        }
        self.registries.clients.get(&other)
    }

    pub(super) fn url(&self, place: &Place, path: &str) -> Url {
        let mut url = place.host.base.clone();
        let slash = if path.starts_with('@') { "" } else { "/" };
        let above = place.host.base.path().trim_end_matches('/');
        url.set_path(&format!("{above}/{}{slash}{path}", self.reference.repository()));
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

fn bad_redirect(url: &Url, how: &str) -> Failure {
    let from = authority(url);
    Failure::Fatal(Problem::Protocol(format!("{from} redirects {how}: it, or a proxy before it, is set up wrongly")))
}

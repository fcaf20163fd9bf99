//! What refers to a manifest: signatures, mostly. Registries list it page by page (the referrers API); for those that do
//! not know how, clients keep the list themselves, as an index with a tag made of the digest.
//!
//! Hosts are asked in their order, until one lists something that is wanted: a mirror may well have an image and nothing
//! of what hangs at it.

use std::collections::BTreeMap;

use reqwest::{
    Method, Response, Url,
    header::{CONTENT_TYPE, HeaderMap, LINK},
};
use serde::Deserialize;

use super::{
    ask::Ask,
    body::{Body, BodyError},
    error::{Problem, RegistryError},
    session::{Place, Session},
};
use crate::digest::Digest;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Pages of a list that are read.
const MAX_PAGES: usize = 32;
/// Letters of a digest that go into a tag, as tags have at most 128.
const MAX_TAGGED: usize = 64;

/// An entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub digest: Digest,
    pub size: u64,
    pub artifact_type: String,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    digest: String,
    size: u64,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Entry {
    /// A digest of a kind that we don't know is of something that nobody here wants.
    fn known(self) -> Option<Listed> {
        Some(Listed {
            digest: self.digest.parse().ok()?,
            size: self.size,
            artifact_type: self.artifact_type.unwrap_or_default(),
            annotations: self.annotations.unwrap_or_default(),
        })
    }
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// A registry may leave out others.
    pub artifact_type: &'static str,
    pub is: fn(&Listed) -> bool,
    /// No more than these.
    pub max: usize,
}

impl Wanted {
    /// Takes what is wanted from a list.
    pub(crate) fn take(&self, list: &[u8], found: &mut Vec<Listed>) -> Result<(), serde_json::Error> {
        let entries = serde_json::from_slice::<List>(list)?.manifests.unwrap_or_default();
        for entry in entries.into_iter().filter_map(Entry::known).filter(self.is) {
            if found.len() < self.max && !found.contains(&entry) {
                found.push(entry);
            }
        }
        Ok(())
    }
}

impl Session {
    /// Lists what refers to a manifest.
    pub(crate) async fn referrers(&self, digest: &Digest, wanted: Wanted) -> Result<Vec<Listed>, RegistryError> {
        let what = format!("cannot list what refers to {digest} of {}", self.reference);
        let mut failures = Vec::new();
        let able = self.able(true);
        for (position, (_, place)) in able.iter().enumerate() {
            let only = position + 1 == able.len();
            if place.is_dead() && !only {
                continue;
            }
            match self.pages(place, digest, wanted, only).await {
                Ok(found) if !found.is_empty() => return Ok(found),
                // An answer, too, and the last one counts.
                Ok(_) => failures.clear(),
                // It knows no such lists.
                Err(Problem::NotFound(_) | Problem::Status { .. }) => failures.clear(),
                Err(problem) => {
                    place.note(&problem);
                    failures.push((place.host.name(), problem));
                }
            }
        }
        let found = self.tagged(digest, wanted).await?;
        if found.is_empty() && !failures.is_empty() {
            return Err(self.outcome(&what, failures, true));
        }
        Ok(found)
    }

    /// The list of one host, without what is not wanted.
    async fn pages(
        &self,
        place: &Place,
        digest: &Digest,
        wanted: Wanted,
        persist: bool,
    ) -> Result<Vec<Listed>, Problem> {
        let path = format!("referrers/{digest}");
        let mut url = self.url(place, &path);
        url.query_pairs_mut().append_pair("artifactType", wanted.artifact_type);
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let ask = Ask { at: Some(&url), accept: Some(INDEX), verified: false, ..Ask::new(&Method::GET, &path) };
            let Some((next, page)) = self.page(place, &ask, persist).await? else { break };
            let invalid =
                |error| Problem::Protocol(format!("its list of what refers to {digest} is not valid: {error}"));
            wanted.take(&page, &mut found).map_err(invalid)?;
            match next {
                Some(next) if found.len() < wanted.max => url = next,
                _ => break,
            }
        }
        Ok(found)
    }

    /// One page, and where the next is. Nothing, if the answer is no list: some answer everything with a page of theirs.
    async fn page(
        &self,
        place: &Place,
        ask: &Ask<'_>,
        persist: bool,
    ) -> Result<Option<(Option<Url>, Vec<u8>)>, Problem> {
        let timeouts = &self.registries.timeouts;
        let limit = self.registries.limits.manifest_bytes;
        let mut attempt = 0;
        loop {
            let response = self.ask(place, ask, persist).await?;
            if !is_index(&response) {
                return Ok(None);
            }
            let next = next(response.headers(), response.url());
            if next.as_ref().is_some_and(|next| !place.host.same_origin(next)) {
                return Err(Problem::Protocol("its list goes on at another host, where nobody was told to ask".into()));
            }
            attempt += 1;
            match Body::new(response, limit, timeouts).bytes().await {
                Ok(page) => return Ok(Some((next, page))),
                Err(BodyError::TooLarge) => return Err(Problem::TooLarge(limit)),
                Err(_) if attempt < timeouts.attempts => tokio::time::sleep(timeouts.backoff(attempt - 1)).await,
                Err(error) => return Err(self.problem(error, attempt)),
            }
        }
    }

    /// The list that clients keep where the registry has none.
    async fn tagged(&self, digest: &Digest, wanted: Wanted) -> Result<Vec<Listed>, RegistryError> {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        let tag = format!("{algorithm}-{}", hex.get(..MAX_TAGGED).unwrap_or(hex));
        let Some(index) = self.attached(&tag).await? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        wanted.take(&index, &mut found).map_err(|error| RegistryError {
            what: format!("cannot read the list {tag} of what refers to {}", self.reference),
            host: self.reference.registry().to_owned(),
            problem: Problem::Protocol(format!("it is not valid: {error}")),
        })?;
        Ok(found)
    }
}

fn is_index(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.and_then(|kind| kind.split(';').next()).is_some_and(|kind| kind.trim().eq_ignore_ascii_case(INDEX))
}

/// Where a list goes on, by a header like `</v2/name/referrers/sha256:…?last=x>; rel="next"`.
fn next(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    // An address may have commas in it, and so begins a link, not the comma.
    let mut links = links.flat_map(|link| link.split('<').skip(1)).filter_map(|link| link.split_once('>'));
    links.find_map(|(target, parameters)| {
        let mut relations = parameters.split([';', ',']).filter_map(|parameter| parameter.trim().strip_prefix("rel="));
        let is_next = relations.any(|relation| relation.trim_matches('"').eq_ignore_ascii_case("next"));
        is_next.then(|| from.join(target).ok()).flatten()
    })
}

#[cfg(test)]
mod tests;

//! Who asks: credentials of one pull, and the tokens that a registry gives for them.
//!
//! Tokens live as long as the pull that asked for them, so that no pull ever profits from another one's credentials.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_auth::parse_challenges;
use reqwest::{
    Url,
    header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Credentials as a pull request brings them, in CRI's terms.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// `user:password` in base64, in place of the two.
    pub auth: String,
    /// The registry they are for; empty is the one that the image names.
    pub server_address: String,
    /// OAuth2 refresh token.
    pub identity_token: String,
    /// Bearer token, sent as it is.
    pub registry_token: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

/// Credentials that cannot be read.
#[derive(Debug, Error)]
#[error("the credentials' field auth is not the base64 form of user:password")]
pub struct InvalidAuth;

impl RegistryAuth {
    /// What tells one pull's credentials from another's, without keeping them.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let fields = [
            &self.username,
            &self.password,
            &self.auth,
            &self.server_address,
            &self.identity_token,
            &self.registry_token,
        ];
        for field in fields {
            hasher.update((field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        hasher.finalize().into()
    }

    /// Whether they may be shown to a host: to the one that they name, or, when they name none, to the registry itself.
    pub(crate) fn is_for(&self, host: &str, upstream: bool) -> bool {
        if self.server_address.is_empty() {
            return upstream;
        }
        let address = self.server_address.split_once("://").map_or(self.server_address.as_str(), |(_, rest)| rest);
        let address = address.split('/').next().unwrap_or_default();
        let docker = ["docker.io", "index.docker.io", "registry-1.docker.io"];
        address == host || docker.contains(&address) && docker.contains(&host)
    }
}

/// Credentials in the form in which they are used.
#[derive(Clone)]
pub(crate) enum Credentials {
    Anonymous,
    Password { username: String, password: String },
    IdentityToken(String),
    RegistryToken(String),
}

impl Credentials {
    pub(crate) fn new(auth: Option<&RegistryAuth>) -> Result<Self, InvalidAuth> {
        let Some(auth) = auth else { return Ok(Self::Anonymous) };
        if !auth.registry_token.is_empty() {
            return Ok(Self::RegistryToken(auth.registry_token.clone()));
        }
        if !auth.identity_token.is_empty() {
            return Ok(Self::IdentityToken(auth.identity_token.clone()));
        }
        if !auth.username.is_empty() {
            return Ok(Self::Password { username: auth.username.clone(), password: auth.password.clone() });
        }
        if auth.auth.is_empty() {
            return Ok(Self::Anonymous);
        }
        let plain = BASE64_STANDARD.decode(auth.auth.trim()).map_err(|_| InvalidAuth)?;
        let plain = String::from_utf8(plain).map_err(|_| InvalidAuth)?;
        let (username, password) = plain.split_once(':').ok_or(InvalidAuth)?;
        // Some writers of Docker's configuration pad the decoded text.
        Ok(Self::Password { username: username.into(), password: password.trim_matches('\0').into() })
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

/// `Basic` with a name and a password.
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))
}

/// `Bearer` with a token.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The challenge of a 401 that we can answer, tokens before passwords.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else { continue };
            for challenge in parse_challenges(text).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let param = |name: &str| {
                        let mut params = challenge.params.iter();
                        let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
                        found.map(|(_, value)| value.to_unescaped())
                    };
                    let Some(realm) = param("realm").and_then(|realm| Url::parse(&realm).ok()) else { continue };
                    return Some(Self::Bearer { realm, service: param("service"), scope: param("scope") });
                }
            }
        }
        basic
    }
}

#[cfg(test)]
mod tests;

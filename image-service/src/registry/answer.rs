//! What an answer that is no success means, and when to ask again.

use std::time::{Duration, SystemTime};

use reqwest::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;

use super::{auth::Credentials, body::Body, error::Problem, hosts::authority, session::Place};

/// The longest that a registry can make us wait between two tries.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Bytes of an error that are read.
const MAX_WORDS: u64 = 64 << 10;

pub(super) fn remedy(credentials: &Credentials) -> &'static str {
    match credentials {
        Credentials::Anonymous => {
            "the image does not exist or needs credentials: check its name, or give a pull secret"
        }
        _ => "the credentials are wrong, or may not pull this image: check the pull secret",
    }
}

/// What an answer that is no success means. It may be that of a host to which the registry sent us.
pub(super) async fn refusal(response: Response, place: &Place, attempts: u32) -> Problem {
    let status = response.status();
    let elsewhere = (!place.host.same_origin(response.url())).then(|| authority(response.url()));
    let detail = detail(response).await;
    if let Some(host) = elsewhere
        && status.is_client_error()
        && !is_busy(status)
    {
        return Problem::Elsewhere { host, status, detail };
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Problem::Denied { status, detail, remedy: remedy(&place.credentials) }
        }
        StatusCode::NOT_FOUND => Problem::NotFound(detail),
        _ if is_busy(status) => Problem::Busy { status, detail, attempts },
        _ => Problem::Status { status, detail },
    }
}

/// Whether asking again may help.
pub(super) fn is_busy(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) || status.is_server_error()
}

/// The registry's own words, if it sent any.
pub(super) async fn detail(response: Response) -> String {
    let timeouts = crate::config::Timeouts { stall_seconds: 5, ..Default::default() };
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let plain = kind.is_some_and(|kind| kind.starts_with("text/plain"));
    let body = Body::new(response, MAX_WORDS, &timeouts).bytes().await.unwrap_or_default();
    words(&body, plain)
}

/// What an error's body says, in one line and not too much of it.
fn words(body: &[u8], plain: bool) -> String {
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
    let text = match serde_json::from_slice::<Answer>(body) {
        Ok(answer) => {
            let items = answer.errors.into_iter().take(3).map(|item| format!("{}: {}", item.code, item.message));
            items.collect::<Vec<_>>().join("; ")
        }
        // Proxies and load balancers say it in their own way; their pages are no help in a log.
        Err(_) if plain => String::from_utf8_lossy(body).trim().to_owned(),
        Err(_) => String::new(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    if text.is_empty() { text } else { format!(", {text}") }
}

/// How long the registry asks us to wait, in seconds or until a date, within reason.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests;

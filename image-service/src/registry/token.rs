//! Answering a registry's challenge: passwords at once, tokens from the token server that it names.

use std::time::SystemTime;

use reqwest::{
    Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;

use super::{
    answer::{detail, is_busy, remedy, retry_after},
    auth::{Challenge, Credentials, basic, bearer},
    body::{Body, BodyError},
    error::{NetworkError, Problem},
    session::{Place, Session},
};

const MAX_TOKEN: u64 = 1 << 20;

impl Session {
    /// Answers a challenge, unless another request of this pull has done so meanwhile.
    pub(super) async fn authorize(
        &self,
        place: &Place,
        response: &Response,
        used: Option<HeaderValue>,
    ) -> Result<(), Problem> {
        let denied =
            || Problem::Denied { status: response.status(), detail: String::new(), remedy: remedy(&place.credentials) };
        // A 401 from where a redirect led to is not the registry's, and gets nothing from us.
        if !place.host.same_origin(response.url()) {
            return Err(denied());
        }
        let mut authorization = place.authorization.lock().await;
        if *authorization != used {
            return Ok(());
        }
        let challenge = Challenge::from_headers(response.headers()).ok_or_else(denied)?;
        let header = match (&challenge, &place.credentials) {
            (_, Credentials::RegistryToken(_))
            | (Challenge::Basic, Credentials::Anonymous | Credentials::IdentityToken(_)) => {
                return Err(denied());
            }
            (Challenge::Basic, Credentials::Password { username, password }) => basic(username, password),
            (Challenge::Bearer { realm, service, scope }, _) => {
                let token = self.token(place, realm, service.as_deref(), scope.as_deref()).await?;
                bearer(&token)
            }
        };
        *authorization = Some(header.ok_or_else(denied)?);
        Ok(())
    }

    /// Gets a token for pulling from this repository.
    async fn token(
        &self,
        place: &Place,
        realm: &Url,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String, Problem> {
        let failed = |why: String| Problem::Token { realm: super::hosts::authority(realm), why };
        let client = self.client(place, realm)?;
        let secure = realm.scheme() == "https" || place.host.base.scheme() == "http" && realm.scheme() == "http";
        if !secure && !place.credentials.is_anonymous() {
            return Err(Problem::Insecure(super::hosts::authority(realm)));
        }
        let default_scope = format!("repository:{}:pull", self.reference.repository());
        let scope = scope.unwrap_or(&default_scope);
        let mut params = Vec::new();
        if let Some(service) = service {
            params.push(("service", service));
        }
        let request = if let Credentials::IdentityToken(token) = &place.credentials {
            params.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "tripod"),
                ("refresh_token", token),
                ("scope", scope),
            ]);
            let mut form = realm.clone();
            form.set_query(None);
            form.query_pairs_mut().extend_pairs(&params);
            let body = form.query().unwrap_or_default().to_owned();
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            client.post(realm.clone()).header(CONTENT_TYPE, form_type).body(body)
        } else {
            let mut url = realm.clone();
            params.extend(scope.split(' ').filter(|scope| !scope.is_empty()).map(|scope| ("scope", scope)));
            if let Credentials::Password { username, .. } = &place.credentials {
                params.push(("account", username));
            }
            url.query_pairs_mut().extend_pairs(&params);
            let request = client.get(url);
            match &place.credentials {
                Credentials::Password { username, password } => match basic(username, password) {
                    Some(header) => request.header(AUTHORIZATION, header),
                    None => return Err(failed("the credentials cannot be sent in a header".into())),
                },
                _ => request,
            }
        };
        let timeouts = &self.registries.timeouts;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Some(request) = request.try_clone() else {
                return Err(failed("the request cannot be repeated".into()));
            };
            let mut wait = timeouts.backoff(attempt - 1);
            let why = match tokio::time::timeout(timeouts.response(), request.send()).await {
                Ok(Ok(response)) if response.status().is_success() => {
                    match Body::new(response, MAX_TOKEN, timeouts).bytes().await {
                        Ok(body) => return read_token(&body).ok_or_else(|| failed("its answer has none".into())),
                        Err(BodyError::TooLarge) => {
                            return Err(failed(format!("its answer has more than {MAX_TOKEN} bytes")));
                        }
                        Err(BodyError::Stalled) => "its answer does not come to an end".to_owned(),
                        Err(BodyError::Network(error)) => format!("its answer breaks off: {error}"),
                    }
                }
                Ok(Ok(response)) => {
                    let status = response.status();
                    if let Some(asked) = retry_after(response.headers(), SystemTime::now()) {
                        wait += asked;
                    }
                    let detail = detail(response).await;
                    if !is_busy(status) {
                        return Err(Problem::Denied { status, detail, remedy: remedy(&place.credentials) });
                    }
                    format!("it answered {status}{detail}")
                }
                Ok(Err(error)) => {
                    let error = NetworkError::from(error);
                    if let Some(remedy) = error.remedy {
                        let realm = super::hosts::authority(realm);
                        return Err(Problem::Tls(format!("the token server {realm}: {error}: {remedy}")));
                    }
                    error.to_string()
                }
                Err(_) => "it does not answer".to_owned(),
            };
            if attempt >= timeouts.attempts {
                return Err(failed(why));
            }
            tokio::time::sleep(wait).await;
        }
    }
}

fn read_token(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.token.filter(|token| !token.is_empty()).or(answer.access_token).filter(|token| !token.is_empty())
}

//! Token servers that are busy, broken, or unwilling, and tokens that do not help.

use tripod_engine::Kind;
use tripod_image_service::{PullRequest, RegistryAuth};

use super::{
    fake::{Fake, Reply},
    fixture::{Image, Tar},
    root::Root,
};

fn image() -> Image {
    Image::new(vec![Tar::new().file("a", "first").gzip()])
}

fn bearer(realm: &str) -> Reply {
    Reply::Answer(401, vec![("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))], Vec::new())
}

async fn pull(fake: &Fake, auth: Option<RegistryAuth>) -> Result<String, tripod_engine::Error> {
    let request = PullRequest { reference: fake.name(), auth, progress: None };
    Root::new().await.images.pull(request).await.map(|image| image.id)
}

fn me() -> RegistryAuth {
    RegistryAuth { username: "me".into(), password: "secret".into(), ..RegistryAuth::default() }
}

#[tokio::test]
async fn an_identity_token_is_a_refresh_token() {
    let image = image();
    let tokens = Fake::new(|seen| {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        let parts: Vec<&str> = form.split('&').collect();
        let wanted = [
            "grant_type=refresh_token",
            "service=s",
            "client_id=tripod",
            "refresh_token=a%2Bb%2F%3D",
            "scope=repository%3Atest%2Fimage%3Apull",
        ];
        let good = seen.method == "POST"
            && wanted.iter().all(|part| parts.contains(part))
            && seen.header("content-type") == Some("application/x-www-form-urlencoded")
            && seen.header("authorization").is_none();
        if good { Reply::ok(br#"{"access_token":"good","expires_in":60}"#) } else { Reply::status(400) }
    })
    .await;
    let realm = format!("http://{}/token", tokens.address);
    let fake = Fake::with(&image, move |seen| match seen.header("authorization") {
        Some("Bearer good") => None,
        _ => Some(bearer(&realm)),
    })
    .await;
    let auth = |token: &str| RegistryAuth { identity_token: token.into(), ..RegistryAuth::default() };
    assert_eq!(pull(&fake, Some(auth("a+b/="))).await.unwrap(), image.id());
    let error = pull(&fake, Some(auth("other"))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert!(error.to_string().contains("pull secret") && !error.to_string().contains("other"), "{error}");
}

#[tokio::test]
async fn a_busy_token_server_is_asked_again() {
    let image = image();
    let tokens = Fake::new(|seen| match seen.before {
        0 => Reply::Answer(429, vec![("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT".into())], Vec::new()),
        1 => Reply::Break(200, Vec::new(), 100, b"{".to_vec()),
        _ => Reply::ok(br#"{"token":"good"}"#),
    })
    .await;
    let realm = format!("http://{}/token", tokens.address);
    let fake = Fake::with(&image, move |seen| match seen.header("authorization") {
        Some("Bearer good") => None,
        _ => Some(bearer(&realm)),
    })
    .await;
    assert_eq!(pull(&fake, None).await.unwrap(), image.id());
    assert_eq!(tokens.seen().len(), 3);
    let tokens = Fake::new(|_| Reply::status(503)).await;
    let realm = format!("http://{}/token", tokens.address);
    let fake = Fake::new(move |_| bearer(&realm)).await;
    let error = pull(&fake, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&tokens.address) && error.to_string().contains("503"), "{error}");
    assert_eq!(tokens.seen().len(), 3);
}

#[tokio::test]
async fn a_token_that_does_not_help_is_got_once() {
    let tokens = Fake::new(|_| Reply::ok(br#"{"token":"bad"}"#)).await;
    let realm = format!("http://{}/token", tokens.address);
    let fake = Fake::new(move |_| bearer(&realm)).await;
    let error = pull(&fake, Some(me())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::PermissionDenied);
    assert_eq!((tokens.seen().len(), fake.seen().len()), (1, 2));
    // Nor does a token of the caller's own: there is nothing to renew it with.
    let auth = RegistryAuth { registry_token: "mine".into(), ..RegistryAuth::default() };
    assert_eq!(pull(&fake, Some(auth)).await.unwrap_err().kind(), Kind::PermissionDenied);
    assert_eq!((tokens.seen().len(), fake.seen().len()), (1, 3));
    assert_eq!(fake.seen()[2].header("authorization"), Some("Bearer mine"));
}

use super::*;

fn challenge(lines: &[&'static str]) -> Option<Challenge> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(line));
    }
    Challenge::from_headers(&headers)
}

#[test]
fn reads_challenges() {
    let bearer = Challenge::Bearer {
        realm: Url::parse("https://auth.example/token").unwrap(),
        service: Some("registry.example".into()),
        scope: Some("repository:a/b:pull".into()),
    };
    let line = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#;
    assert_eq!(challenge(&[line]), Some(bearer.clone()));
    assert_eq!(challenge(&["Basic realm=\"x\"", line]), Some(bearer));
    assert_eq!(challenge(&["basic realm=\"x\""]), Some(Challenge::Basic));
    assert_eq!(challenge(&["Negotiate", "Bearer realm=\"not a url\""]), None);
    assert_eq!(challenge(&[]), None);
}

#[test]
fn reads_every_form_of_credentials() {
    let read = |auth: RegistryAuth| Credentials::new(Some(&auth));
    let field = |auth: &str| RegistryAuth { auth: auth.into(), ..RegistryAuth::default() };
    assert!(Credentials::new(None).unwrap().is_anonymous());
    assert!(read(RegistryAuth::default()).unwrap().is_anonymous());
    let decoded = read(field(&BASE64_STANDARD.encode("me:a:b\0"))).unwrap();
    assert!(matches!(decoded, Credentials::Password { username, password } if username == "me" && password == "a:b"));
    assert!(read(field("%%%")).is_err());
    assert!(read(field(&BASE64_STANDARD.encode("me"))).is_err());
    let identity = RegistryAuth { identity_token: "t".into(), username: "me".into(), ..RegistryAuth::default() };
    assert!(matches!(read(identity).unwrap(), Credentials::IdentityToken(token) if token == "t"));
    let registry = RegistryAuth { registry_token: "r".into(), ..RegistryAuth::default() };
    assert!(matches!(read(registry).unwrap(), Credentials::RegistryToken(token) if token == "r"));
}

#[test]
fn credentials_go_to_their_host_only() {
    let named = |address: &str| RegistryAuth { server_address: address.into(), ..RegistryAuth::default() };
    assert!(named("").is_for("quay.io", true));
    assert!(!named("").is_for("mirror", false));
    assert!(named("mirror:5000").is_for("mirror:5000", false));
    assert!(!named("https://quay.io/v2/").is_for("mirror", true));
    assert!(named("https://index.docker.io/v1/").is_for("registry-1.docker.io", true));
    assert!(!format!("{:?}", RegistryAuth { password: "secret".into(), ..named("x") }).contains("secret"));
    assert_ne!(
        named("a").fingerprint(),
        RegistryAuth { username: "a".into(), ..RegistryAuth::default() }.fingerprint()
    );
}

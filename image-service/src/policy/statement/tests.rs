use super::*;

fn digest() -> Digest {
    Digest::of(b"manifest")
}

fn statement(subjects: &str) -> String {
    format!(r#"{{"_type": "{}", "subject": [{subjects}], "predicateType": "{SIGNED}", "predicate": {{}}}}"#, TYPES[0])
}

fn subject(name: &str) -> String {
    format!(r#"{{{name}"digest": {{"sha256": "{}"}}, "annotations": {{}}}}"#, digest().hex())
}

fn counts(text: &str, identity: &str) -> Result<(), String> {
    let identity = serde_json::from_str(identity).unwrap();
    check(text.as_bytes(), &digest(), &"a.example/app:1".parse().unwrap(), &identity)
}

const ANY: &str = r#"{"type": "matchDigest"}"#;

#[test]
fn a_statement_is_for_one_image() {
    let good = statement(&subject(""));
    counts(&good, ANY).unwrap();
    counts(&good.replace("v1\", \"subject", "v0.1\", \"subject"), ANY).unwrap();
    counts(&good.replacen('{', "{\"later\": 1, ", 1), ANY).unwrap();
    let (own, hex) = (subject(""), digest().hex().to_owned());
    let other = own.replace(&hex, Digest::of(b"other").hex());
    let sha512 = "0".repeat(128);
    for (text, told) in [
        (statement(""), "0 things"),
        (statement(&format!("{own}, {own}")), "2 things"),
        (statement(&format!("{own}, {other}")), "2 things"),
        (statement(&other), "it is for sha256:"),
        (statement(&own.replace(&hex, &hex.to_uppercase())), "it is for sha256:"),
        (statement(&own.replace(&hex, &format!(" {hex}"))), "it is for sha256:"),
        (statement(&own.replace("sha256", "sha512")), "it is for sha512:"),
        (statement(&own.replace("sha256", "sha256:x")), "it is for sha256:x:"),
        (statement(r#"{"digest": {}}"#), "0 digests"),
        (statement(&own.replace("\"sha256\"", &format!(r#""sha512": "{sha512}", "sha256""#))), "2 digests"),
        (statement(&own.replace("\"sha256\"", "\"sha256\": \"\", \"sha256\"")), "twice"),
        (statement(&own.replacen('{', "{\"digest\": {}, ", 1)), "duplicate"),
        (good.replacen('{', "{\"subject\": [], ", 1), "duplicate"),
        (good.replacen('{', "{\"predicateType\": \"\", ", 1), "duplicate"),
        (good.replacen('{', "{\"_type\": \"\", ", 1), "duplicate"),
        (good.replace(SIGNED, "https://slsa.dev/provenance/v1"), "says something else"),
        (good.replace(SIGNED, ""), "says something else"),
        (good.replace("Statement/v1", "Statement/v2"), "of the type"),
        (good.replace("\"subject\"", "\"subjects\""), "no statement"),
        (good.replace("sha256", "sha\\u0000256"), "it is for sha256:"),
        ("null".into(), "no statement"),
        (String::new(), "no statement"),
    ] {
        let why = counts(&text, ANY).unwrap_err();
        assert!(why.contains(told), "{text}: {why}");
    }
    for end in 0..good.len() {
        counts(&good[..end], ANY).unwrap_err();
    }
}

#[test]
fn names() {
    let repository = r#"{"type": "matchRepository"}"#;
    let exact = r#"{"type": "matchRepoDigestOrExact"}"#;
    let named = |name: &str| statement(&subject(&format!("\"name\": {name}, ")));
    for (name, identity, accepted) in [
        ("\"a.example/app\"", repository, true),
        ("\"a.example/app\"", exact, false),
        ("\"a.example/app:1\"", exact, true),
        ("\"a.example/app:2\"", exact, false),
        ("\"a.example/apps\"", repository, false),
        ("\"A name\"", repository, false),
        ("\"A name\"", ANY, true),
        ("\"\"", repository, false),
        ("null", repository, false),
        ("null", exact, false),
        ("null", ANY, true),
    ] {
        assert_eq!(counts(&named(name), identity).is_ok(), accepted, "{name}, {identity}");
    }
    for identity in [
        repository,
        exact,
        r#"{"type": "matchExact"}"#,
        r#"{"type": "exactReference", "dockerReference": "a.example/app:1"}"#,
        r#"{"type": "exactRepository", "dockerRepository": "a.example/app"}"#,
        r#"{"type": "remapIdentity", "prefix": "a.example", "signedPrefix": "a.example"}"#,
    ] {
        let why = counts(&statement(&subject("")), identity).unwrap_err();
        assert!(why.contains("names no image"), "{identity}: {why}");
    }
}

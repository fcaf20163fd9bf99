use std::path::Path;

use super::{file, gpgv, key::PublicKey, *};
use crate::policy::identity::SignedIdentity;

pub(super) mod cosign;

const ANY: &str = r#"{"type": "insecureAcceptAnything"}"#;

fn parse(text: &str) -> std::result::Result<Policy, String> {
    file::parse(text.as_bytes(), Path::new("/policy.json"))
}

fn scoped(scopes: &[&str]) -> Policy {
    let scopes: Vec<_> = scopes.iter().map(|scope| format!("{scope:?}: [{ANY}]")).collect();
    let text =
        format!(r#"{{"default": [{{"type": "reject"}}], "transports": {{"docker": {{{}}}}}}}"#, scopes.join(", "));
    parse(&text).unwrap()
}

fn reference(name: &str) -> Reference {
    name.parse().unwrap()
}

#[test]
fn the_closest_scope_decides() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let image = reference("registry.example.com:5000/ns/sub/app:1");
    let mut scopes = vec![
        "",
        "*.com",
        "*.example.com",
        "registry.example.com:5000",
        "registry.example.com:5000/ns",
        "registry.example.com:5000/ns/sub",
        "registry.example.com:5000/ns/sub/app",
        "registry.example.com:5000/ns/sub/app:1",
    ];
    while let Some(closest) = scopes.last() {
        let policy = scoped(&scopes);
        let (place, found) = policy.registry(&image);
        assert_eq!((place, found.len()), (format!("/policy.json: transports.docker.{closest:?}"), 1));
        scopes.pop();
    }
    let place = |scopes: &[&str], image: &str| scoped(scopes).registry(&reference(image)).0;
    let default = "/policy.json: default";
    assert_eq!(place(&["registry.example.com/ns"], "registry.example.com/nsx/app:1"), default);
    assert_eq!(place(&["registry.example.com"], "registry.example.com:5000/app:1"), default, "another port");
    assert_eq!(place(&["*.example.com"], "example.com/app:1"), default);
    assert_eq!(place(&["docker.io/library/busybox:1"], "busybox:2"), default);
    assert!(place(&["docker.io/library/busybox"], "busybox:2").contains("library/busybox"));
    // A tag beside a digest says nothing about what is pulled.
    let by_digest = format!("docker.io/library/busybox@{digest}");
    assert!(place(&[&by_digest], &format!("busybox:1@{digest}")).contains(&digest));
    assert_eq!(place(&["docker.io/library/busybox:1"], &format!("busybox:1@{digest}")), default);
    // Names of hosts have no case, and must not lead around a policy.
    assert!(place(&["Registry.example"], "REGISTRY.example/app:1").contains("registry.example"));
}

#[test]
fn archives_have_transports_of_their_own() {
    let policy = parse(&format!(
        r#"{{"default": [{{"type": "reject"}}], "transports": {{"oci-archive": {{"": [{ANY}]}}, "dir": {{"/a": [{ANY}]}}}}}}"#
    ))
    .unwrap();
    assert!(matches!(policy.transport("oci-archive").1, [Requirement::Accept]));
    assert!(matches!(policy.transport("docker-archive").1, [Requirement::Reject]));
    assert!(matches!(policy.registry(&reference("a.example/b:1")).1, [Requirement::Reject]));
}

#[test]
fn what_would_not_be_held_is_refused_by_name() {
    let sigstore = |fields: &str| format!(r#"{{"default": [{{"type": "sigstoreSigned", {fields}}}]}}"#);
    let docker = |scope: &str| format!(r#"{{"default": [{ANY}], "transports": {{"docker": {{{scope:?}: [{ANY}]}}}}}}"#);
    for (text, told) in [
        ("{}".to_owned(), "default"),
        (r#"{"default": []}"#.to_owned(), "no requirement"),
        (r#"{"default": [{"type": "signedBaseLayer"}]}"#.to_owned(), "signedBaseLayer"),
        (r#"{"default": [{"type": "reject", "keyPath": "/k"}]}"#.to_owned(), "keyPath"),
        (r#"{"default": [{"type": "insecureAcceptAnything", "x": 1}]}"#.to_owned(), "`x`"),
        (format!(r#"{{"default": [{ANY}], "transport": {{}}}}"#), "`transport`"),
        (format!(r#"{{"default": [{ANY}], "default": [{ANY}]}}"#), "duplicate"),
        (format!(r#"{{"default": [{ANY}], "transports": {{"dockr": {{}}}}}}"#), "dockr"),
        (format!(r#"{{"default": [{ANY}], "transports": {{"docker": {{"a.b": [{ANY}], "a.b": [{ANY}]}}}}}}"#), "twice"),
        (format!(r#"{{"default": [{ANY}], "transports": {{"docker": {{"a.b": [{ANY}], "A.b": [{ANY}]}}}}}}"#), "twice"),
        (format!(r#"{{"default": [{ANY}], "transports": {{"oci-archive": {{"/x": [{ANY}]}}}}}}"#), "stream"),
        (docker("busybox"), "fits no image"),
        (docker("a.example/"), "fits no image"),
        (docker("*.a.example/b"), "wildcard"),
        (docker("https://a.example"), "fits no image"),
        (sigstore(r#""fulcio": {}"#), "fulcio"),
        (sigstore(r#""keyPath": "/k", "rekorPublicKeyData": "x""#), "rekorPublicKeyData"),
        (sigstore(r#""pki": {}, "keyPath": "/k""#), "pki"),
        (sigstore(r#""signedIdentity": {"type": "matchExact"}"#), "exactly one"),
        (sigstore(r#""keyPath": "/k", "keyData": "aaaa""#), "exactly one"),
        (sigstore(r#""keyPaths": []"#), "empty"),
        (sigstore(r#""keyData": "%""#), "base64"),
        (sigstore(r#""keyPath": "/k", "signedIdentity": {"type": "matchAll"}"#), "matchAll"),
        (
            sigstore(r#""keyPath": "/k", "signedIdentity": {"type": "exactReference", "dockerReference": "a.b/c"}"#),
            "a.b/c",
        ),
        (sigstore(r#""keyPath": "/k", "signedIdentity": {"type": "matchExact", "prefix": "a"}"#), "prefix"),
        (sigstore(r#""keyPath": "/k", "keyType": "GPGKeys""#), "keyType"),
        (
            r#"{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "signedIdentity": {"type": "matchDigest"}}]}"#
                .to_owned(),
            "matchDigest",
        ),
        (sigstore(r#""keyPath": "/k", "signedIdentity": {"type": "matchDigest", "prefix": "a"}"#), "prefix"),
        (r#"{"default": [{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}]}"#.to_owned(), "X509"),
        (r#"{"default": [{"type": "signedBy", "keyPath": "/k"}]}"#.to_owned(), "keyType"),
    ] {
        let why = parse(&text).unwrap_err();
        assert!(why.contains(told), "{text}\n{why}");
    }
}

#[test]
fn identities() {
    let digest = format!("sha256:{}", "b".repeat(64));
    let with = |text: &str| serde_json::from_str::<SignedIdentity>(text).unwrap();
    let (exact, repository) = (with(r#"{"type": "matchExact"}"#), with(r#"{"type": "matchRepository"}"#));
    let default = SignedIdentity::default();
    let pinned = with(r#"{"type": "exactReference", "dockerReference": "a.example/app:9"}"#);
    let pinned_repository = with(r#"{"type": "exactRepository", "dockerRepository": "a.example/app"}"#);
    let any = with(r#"{"type": "matchDigest"}"#);
    let remapped = with(r#"{"type": "remapIdentity", "prefix": "mirror.example", "signedPrefix": "a.example"}"#);
    let deeper = with(r#"{"type": "remapIdentity", "prefix": "mirror.example/a", "signedPrefix": "a.example"}"#);
    let tagged = "a.example/app:1".to_owned();
    let by_digest = format!("a.example/app@{digest}");
    for (identity, image, signed, counts) in [
        (&default, tagged.as_str(), "a.example/app:1", true),
        (&default, &tagged, "a.example/app:2", false),
        (&default, &tagged, "a.example/app", false),
        (&default, &tagged, "b.example/app:1", false),
        (&default, &by_digest, "a.example/app:2", true),
        (&default, &by_digest, "a.example/app", false),
        (&default, &by_digest, "a.example/other:2", false),
        (&default, "busybox:1", "busybox:1", true),
        (&exact, &tagged, "a.example/app:1", true),
        (&exact, &by_digest, "a.example/app:1", false),
        (&exact, &by_digest, &by_digest, true),
        (&exact, &tagged, "a.example/app", false),
        (&repository, &tagged, "a.example/app", true),
        (&repository, &tagged, "a.example/app:7", true),
        (&repository, &tagged, "a.example/apps", false),
        (&repository, &tagged, "", false),
        (&any, &tagged, "b.example/other", true),
        (&any, &tagged, "No Name", true),
        (&pinned, &tagged, "a.example/app:9", true),
        (&pinned, &tagged, "a.example/app:1", false),
        (&pinned_repository, "other.example/x:1", "a.example/app:5", true),
        (&pinned_repository, "other.example/x:1", "other.example/x:1", false),
        (&remapped, "mirror.example/app:1", "a.example/app:1", true),
        (&remapped, "mirror.example/app:1", "mirror.example/app:1", false),
        (&remapped, "mirror.example:5000/app:1", "a.example:5000/app:1", false),
        (&remapped, "mirror.example:5000/app:1", "mirror.example:5000/app:1", true),
        (&deeper, "mirror.example/a/app:1", "a.example/app:1", true),
        (&deeper, "mirror.example/ab/app:1", "a.exampleb/app:1", false),
    ] {
        assert_eq!(identity.accepts(&reference(image), signed), counts, "{identity:?}: {image}, signed as {signed}");
    }
}

/// Runs openssl and gives what it says.
fn openssl(folder: &Path, arguments: &str) -> Vec<u8> {
    let command = std::process::Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = command.expect("openssl (Debian: openssl)");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn keys_of_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("message"), "message").unwrap();
    for (kind, sign) in [
        ("EC -pkeyopt ec_paramgen_curve:P-256", "dgst -sha256 -sign key message"),
        ("EC -pkeyopt ec_paramgen_curve:P-384", "dgst -sha256 -sign key message"),
        ("EC -pkeyopt ec_paramgen_curve:P-384", "dgst -sha384 -sign key message"),
        ("RSA -pkeyopt rsa_keygen_bits:2048", "dgst -sha256 -sign key message"),
        ("ED25519", "pkeyutl -sign -rawin -inkey key -in message"),
    ] {
        openssl(folder.path(), &format!("genpkey -algorithm {kind} -out key"));
        let public = PublicKey::parse(&openssl(folder.path(), "pkey -in key -pubout")).unwrap();
        let signature = openssl(folder.path(), sign);
        assert!(public.verifies(b"message", &signature), "{kind}");
        assert!(!public.verifies(b"massage", &signature) && !public.verifies(b"message", b"signature"), "{kind}");
    }
    openssl(folder.path(), "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp521r1 -out key");
    assert!(PublicKey::parse(&openssl(folder.path(), "pkey -in key -pubout")).unwrap_err().contains("P-256"));
}

#[test]
fn keys_that_are_none() {
    for pem in [
        "",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        "-----BEGIN PUBLIC KEY-----\n%\n-----END PUBLIC KEY-----",
        "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----",
    ] {
        assert!(PublicKey::parse(pem.as_bytes()).is_err(), "{pem}");
    }
}

#[test]
fn armor_comes_off() {
    let armored = "text before\n-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\nmQEN\nBGAA\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n";
    let packets = gpgv::dearmored(armored.as_bytes()).unwrap();
    assert_eq!(packets, [0x99, 0x01, 0x0d, 0x04, 0x60, 0x00]);
    assert_eq!(gpgv::dearmored(&packets).unwrap(), packets);
    assert_eq!(gpgv::dearmored(armored.repeat(2).as_bytes()).unwrap(), packets.repeat(2));
    for wrong in ["", "text", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQEN", &armored.replace("mQEN", "m%EN")] {
        assert!(gpgv::dearmored(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn claims() {
    let digest = Digest::of(b"manifest");
    let image = reference("a.example/app:1");
    let claim = |digest: &Digest, kind: &str, name: &str, more: &str| {
        format!(
            r#"{{"critical": {{"identity": {{"docker-reference": {name:?}}}, "image": {{"docker-manifest-digest": "{digest}"}}, "type": {kind:?}}}, "optional": null{more}}}"#
        )
    };
    let check = |text: &str| claim::check(text.as_bytes(), claim::COSIGN, &digest, &image, &SignedIdentity::default());
    let name = "a.example/app:1";
    check(&claim(&digest, claim::COSIGN, name, "")).unwrap();
    for (text, told) in [
        (claim(&Digest::of(b"other"), claim::COSIGN, name, ""), "not for"),
        (claim(&digest, claim::SIMPLE, name, ""), "type"),
        (claim(&digest, claim::COSIGN, "a.example/app:2", ""), "identity"),
        (claim(&digest, claim::COSIGN, name, r#", "x": 1"#), "`x`"),
        (claim(&digest, claim::COSIGN, name, "").replace(r#""type""#, r#""type": "a", "type""#), "duplicate"),
        ("{}".to_owned(), "critical"),
    ] {
        let why = check(&text).unwrap_err();
        assert!(why.contains(told), "{text}: {why}");
    }
}

use super::*;
use crate::digest::Digest;

fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    let mut next = || parts.next();
    Platform { os: next().unwrap(), architecture: next().unwrap(), variant: next() }
}

fn entry(text: &str) -> Descriptor {
    let platform = (!text.is_empty()).then(|| platform(text));
    Descriptor { media_type: None, digest: Digest::of(text.as_bytes()), size: 1, platform, annotations: None }
}

/// What is chosen, in order.
fn chosen(offered: &[&str], host: &str) -> Vec<String> {
    let entries: Vec<Descriptor> = offered.iter().map(|text| entry(text)).collect();
    let found = choose(&entries, &platform(host)).unwrap_or_default();
    let name = |found: &Descriptor| offered.iter().find(|text| Digest::of(text.as_bytes()) == found.digest);
    found.into_iter().map(|found| (*name(found).unwrap()).to_owned()).collect()
}

#[test]
fn the_best_that_runs_is_chosen() {
    let arm = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8", "linux/arm/v7"];
    let many = ["windows/amd64", "linux/386", "linux/amd64/v3", "linux/amd64", "linux/arm64", "linux/amd64/v2"];
    for (offered, host, expected) in [
        (&arm[..], "linux/arm/v7", &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"][..]),
        (&arm[..], "linux/arm/v6", &["linux/arm/v6", "linux/arm/v5"]),
        (&arm[..], "linux/arm64/v8", &["linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        (&["linux/arm/v7", "linux/arm64"], "linux/arm64/v8", &["linux/arm64", "linux/arm/v7"]),
        (
            &["linux/arm64/v9", "linux/arm64/v8.2", "linux/arm64"],
            "linux/arm64/v8.3",
            &["linux/arm64/v8.2", "linux/arm64"],
        ),
        (&["linux/arm"], "linux/arm/v6", &[]),
        (&["linux/arm"], "linux/arm/v7", &["linux/arm"]),
        (&many, "linux/amd64", &["linux/amd64", "linux/386"]),
        (&many, "linux/amd64/v2", &["linux/amd64/v2", "linux/amd64", "linux/386"]),
        (&many, "linux/amd64/v4", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"].map(|x| x)),
        (&many, "linux/386", &["linux/386"]),
        (&["linux/x86_64", "linux/aarch64", "Linux/AMD64"], "linux/amd64", &["linux/x86_64", "Linux/AMD64"]),
        (&["linux/riscv64", "linux/s390x"], "linux/riscv64", &["linux/riscv64"]),
        (&["linux/amd64/vx"], "linux/amd64", &[]),
        (&["linux/amd64/v99999999999"], "linux/amd64", &[]),
    ] {
        assert_eq!(chosen(offered, host), expected, "{offered:?} on {host}");
    }
}

#[test]
fn versions_of_windows_mean_nothing() {
    let text = r#"{"os": "linux", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["win32k"]}"#;
    let image: Platform = serde_json::from_str(text).unwrap();
    assert_eq!(platform("linux/amd64").fit(&image), Some(0));
}

#[test]
fn entries_without_a_platform_come_last() {
    assert_eq!(chosen(&[""], "linux/amd64"), [""]);
    assert_eq!(chosen(&["", "linux/amd64"], "linux/amd64"), ["linux/amd64"]);
    let mut index = entry("");
    index.media_type = Some("application/vnd.oci.image.index.v1+json".into());
    let list = [index, entry("linux/amd64"), entry("linux/s390x")];
    let found = choose(&list, &platform("linux/amd64")).unwrap();
    assert_eq!(found.iter().map(|found| &found.digest).collect::<Vec<_>>(), [&list[1].digest, &list[0].digest]);
    let mut attestation = entry("unknown/unknown");
    attestation.annotations =
        Some([("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned())].into());
    let bare = [entry(""), attestation.clone()];
    assert_eq!(choose(&bare, &platform("linux/amd64")).unwrap().len(), 1);
    assert!(choose(&[attestation], &platform("linux/amd64")).is_err());
    assert!(choose(&[], &platform("linux/amd64")).is_err());
}

#[test]
fn says_what_there_is() {
    let list = [entry("linux/arm/v5"), entry("windows/amd64")];
    let message = choose(&list, &platform("linux/amd64")).unwrap_err().to_string();
    assert!(message.contains("linux/amd64") && message.contains("linux/arm/v5, windows/amd64"), "{message}");
}

#[test]
fn knows_the_host() {
    for (architecture, machine, expected) in [
        ("aarch64", "aarch64", Some("v8")),
        ("arm", "armv6l", Some("v6")),
        ("arm", "armv7l", Some("v7")),
        ("arm", "armv8l", Some("v8")),
        ("arm", "aarch64", Some("v8")),
        ("arm", "what", Some("v7")),
        ("riscv64", "riscv64", None),
    ] {
        assert_eq!(variant(architecture, machine).as_deref(), expected, "{architecture} {machine}");
    }
    let host = Platform::host();
    assert_eq!(host.os, "linux");
    assert!(["amd64", "arm64", "386", "arm", "riscv64", "ppc64le", "s390x", "loong64"].contains(&&*host.architecture));
    assert_eq!(*host, host.normal());
}

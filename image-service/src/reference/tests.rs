use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn reads_names_as_the_field_does() {
    for (text, full) in [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("grafana/loki", "docker.io/grafana/loki:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("localhost/busybox", "localhost/busybox:latest"),
        ("localhost:5000/busybox", "localhost:5000/busybox:latest"),
        ("quay.io/a/b/c__d:v1.0_x", "quay.io/a/b/c__d:v1.0_x"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a:b", "[::1]:5000/a:b"),
        ("a---b/c.d", "docker.io/a---b/c.d:latest"),
        ("REGISTRY/a", "REGISTRY/a:latest"),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), full);
    }
}

#[test]
fn digests_win_over_tags() {
    let by_digest: Reference = format!("busybox@{DIGEST}").parse().unwrap();
    assert_eq!((by_digest.tag(), by_digest.manifest().as_str()), (None, DIGEST));
    assert_eq!(by_digest.tagged(), None);
    let both: Reference = format!("quay.io/x/y:v1@{DIGEST}").parse().unwrap();
    assert_eq!((both.tag(), both.manifest().as_str()), (Some("v1"), DIGEST));
    assert_eq!(both.key(), format!("quay.io/x/y@{DIGEST}"));
    assert_eq!(both.tagged(), None);
    assert_eq!(both.to_string(), format!("quay.io/x/y:v1@{DIGEST}"));
}

#[test]
fn refuses_what_is_no_reference() {
    let long = "a/".repeat(130) + "a";
    let tag = format!("a:{}", "t".repeat(129));
    for text in [
        "",
        ":tag",
        "a:",
        "a:-b",
        "a:.b",
        "Busybox",
        "a/B",
        "a//b",
        "/a",
        "a/",
        "a b",
        "a@b",
        "a@sha256:12",
        "a..b",
        "a___b",
        "a_.b",
        "-a",
        "a-",
        "_a",
        "../a",
        "a/../b",
        "https://quay.io/a",
        "quay.io:port/a",
        "quay.io:99999/a",
        "a.-b.c/d",
        "[::g]:1/a",
        "a:b:c",
        "é",
        "a\n",
        &long,
        &tag,
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text:?} was read as {:?}", text.parse::<Reference>());
    }
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC*") {
        let _ = text.parse::<Reference>();
    }

    #[test]
    fn never_panics_on_what_is_nearly_right(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn reads_back_what_it_writes(
        registry in prop::sample::select(vec!["docker.io", "quay.io", "localhost:5000", "10.0.0.1:80", "[::1]:5000", "a.b-c.d"]),
        repository in "[a-z0-9]+([._-][a-z0-9]+){0,2}(/[a-z0-9]+(__?[a-z0-9]+)?){1,3}",
        tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        digest in any::<bool>(),
    ) {
        let mut text = format!("{registry}/{repository}:{tag}");
        if digest {
            text += &format!("@{DIGEST}");
        }
        let reference: Reference = text.parse().unwrap();
        prop_assert_eq!(reference.to_string(), text);
        prop_assert_eq!(reference.registry(), registry);
        prop_assert_eq!(reference.repository(), repository);
        prop_assert_eq!(reference.tag(), Some(tag.as_str()));
        prop_assert_eq!(reference.digest().is_some(), digest);
    }
}

use serde_json::json;

use super::*;

fn manifest(titles: &[&str]) -> Vec<u8> {
    let layers: Vec<_> = titles
        .iter()
        .map(|title| json!({"digest": Digest::of(title.as_bytes()), "size": 3, "annotations": {TITLE: title}}))
        .collect();
    serde_json::to_vec(&json!({"layers": layers})).unwrap()
}

fn paths(titles: &[&str]) -> Vec<String> {
    Artifact::parse(&manifest(titles), 10).unwrap().entries.into_keys().collect()
}

#[test]
fn titles_become_paths() {
    assert_eq!(paths(&["b", "a/c/d", "a-b"]), ["a", "a-b", "a/c", "a/c/d", "b"]);
    assert!(paths(&[]).is_empty());
    let digest = Digest::of(b"x");
    let plain = json!({"layers": [{"digest": digest, "size": 1},
                                  {"mediaType": EMPTY, "digest": Digest::of(b"{}"), "size": 2}]});
    let artifact = Artifact::parse(&serde_json::to_vec(&plain).unwrap(), 10).unwrap();
    assert_eq!(artifact.entries.keys().collect::<Vec<_>>(), [&format!("sha256-{}", digest.hex())]);
    assert_eq!(artifact.size(), 1);
}

#[test]
fn hostile_titles_are_refused() {
    let long = "x".repeat(256);
    for title in [
        "",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        ".",
        "./a",
        "a\nb",
        "a\0b",
        ".wh.a",
        "a/.wh..wh..opq",
        &long,
    ] {
        let error = Artifact::parse(&manifest(&[title]), 10).unwrap_err();
        assert!(matches!(error, ArtifactError::Title(..)), "{title:?}: {error}");
    }
    for titles in [&["a", "a"][..], &["a", "a/b"], &["a/b", "a"], &["a/b", "a/b/c"]] {
        let error = Artifact::parse(&manifest(titles), 10).unwrap_err();
        assert!(matches!(error, ArtifactError::Twice(_)), "{titles:?}: {error}");
    }
    assert!(matches!(Artifact::parse(&manifest(&["a"; 11]), 10), Err(ArtifactError::TooMany(11, 10))));
}

#[test]
fn an_archive_of_headers_can_be_read() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut bytes = header(&long, Some(3)).unwrap();
    bytes.extend([b'a'; 3]);
    bytes.extend([0; 509 + 1024]);
    let mut archive = tar::Archive::new(&bytes[..]);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.path().unwrap().to_str().unwrap(), entry.size()), (long.as_str(), 3));
    assert_eq!(header("a", None).unwrap().len(), 512);
}

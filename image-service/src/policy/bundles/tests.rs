use serde_json::{Value, json};

use super::*;
use crate::policy::tests::cosign::Store;

#[test]
fn artifacts_with_a_bundle() {
    let (manifest, _) = Store::new().bundle("v3/rsa");
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        read(manifest.to_string().as_bytes())
    };
    assert!(matches!(changed(&|_| {}), Ok(Some(_))));
    assert!(matches!(changed(&|manifest| manifest["artifactType"] = "application/spdx+json".into()), Ok(None)));
    assert!(matches!(changed(&|manifest| manifest["artifactType"] = Value::Null), Ok(None)));
    let blob = manifest["layers"][0].clone();
    for (layers, told) in [
        (json!([]), "not one blob"),
        (Value::Null, "not one blob"),
        (json!([blob, blob]), "not one blob"),
        (json!({}), "not valid"),
    ] {
        let why = changed(&|manifest| manifest["layers"] = layers.clone()).unwrap_err();
        assert!(why.contains(told), "{layers}: {why}");
    }
    let of = |key: &str, value: Value| changed(&|manifest| manifest["layers"][0][key] = value.clone());
    assert!(of("mediaType", "text/plain".into()).unwrap_err().contains("not of the type"));
    assert!(of("size", (MAX_BYTES + 1).into()).unwrap_err().contains("larger"));
    assert!(matches!(of("size", MAX_BYTES.into()), Ok(Some(_))));
    assert!(of("digest", "sha256:0".into()).is_err());
    assert!(read(b"").is_err());
}

#[test]
fn what_may_have_a_bundle() {
    let entry = |artifact_type: &str, predicate: Option<&str>| Listed {
        digest: Digest::of(b"entry"),
        size: 1,
        artifact_type: artifact_type.to_owned(),
        annotations: predicate.map(|predicate| (PREDICATE.to_owned(), predicate.to_owned())).into_iter().collect(),
    };
    for (artifact_type, predicate, wanted) in [
        (bundle::MEDIA_TYPE, None, true),
        (bundle::MEDIA_TYPE, Some(statement::SIGNED), true),
        (bundle::MEDIA_TYPE, Some("https://slsa.dev/provenance/v1"), false),
        (EMPTY, None, true),
        ("", None, true),
        ("application/spdx+json", None, false),
    ] {
        assert_eq!(is_wanted(&entry(artifact_type, predicate)), wanted, "{artifact_type}, {predicate:?}");
    }
}

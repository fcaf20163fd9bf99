use proptest::prelude::*;

use super::*;

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

fn descriptor(seed: &str, media_type: &str) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": digest(seed), "size": 7})
}

fn entry(seed: &str, os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
    let platform = Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) };
    Descriptor { media_type: None, digest: digest(seed), size: 1, platform: Some(platform), annotations: None }
}

fn parse(value: &serde_json::Value) -> Result<Document, ManifestError> {
    Document::parse(value.to_string().as_bytes(), "", 10)
}

#[test]
fn reads_images_and_indexes() {
    let image = serde_json::json!({"schemaVersion": 2, "config": descriptor("c", OCI_CONFIG), "layers": [descriptor("l", GZIP)]});
    assert!(matches!(parse(&image).unwrap(), Document::Image(manifest) if manifest.layers.len() == 1));
    let empty = serde_json::json!({"schemaVersion": 2, "config": descriptor("c", OCI_CONFIG), "layers": null});
    assert!(matches!(parse(&empty).unwrap(), Document::Image(manifest) if manifest.layers.is_empty()));
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor("m", "application/vnd.oci.image.manifest.v1+json")]});
    assert!(matches!(parse(&index).unwrap(), Document::Index(manifests) if manifests.len() == 1));
}

#[test]
fn says_what_is_wrong() {
    let config = descriptor("c", OCI_CONFIG);
    let layer = descriptor("l", GZIP);
    let many: Vec<_> = (0..11).map(|_| layer.clone()).collect();
    for (value, expected) in [
        (serde_json::json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
        (
            serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}),
            "both layers and manifests",
        ),
        (serde_json::json!({"schemaVersion": 2}), "neither layers nor manifests"),
        (
            serde_json::json!({"schemaVersion": 2, "config": descriptor("c", "application/vnd.cncf.helm.config.v1+json")}),
            "helm",
        ),
        (
            serde_json::json!({"schemaVersion": 2, "config": config, "layers": [descriptor("l", "text/plain")]}),
            "text/plain",
        ),
        (serde_json::json!({"schemaVersion": 2, "config": config, "layers": many}), "11 layers"),
        (serde_json::json!("text"), "not valid JSON"),
        (
            serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": "sha256:../..", "size": 1}]}),
            "not valid JSON",
        ),
        (serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": digest("x"), "size": -1}]}), "not valid JSON"),
    ] {
        let message = parse(&value).unwrap_err().to_string();
        assert!(message.contains(expected), "{value}: {message}");
    }
}

#[test]
fn reads_configurations() {
    let manifest = Manifest { config: entry("c", "", "", None), layers: vec![entry("l", "", "", None)] };
    let good = serde_json::json!({
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest("d")]},
        "config": {"Env": null, "Cmd": ["sh"], "Volumes": {"/data": {}}, "Labels": null},
    });
    let config = ConfigFile::parse(good.to_string().as_bytes(), &manifest).unwrap();
    assert_eq!(config.diff_ids(), [digest("d")]);
    let process = config.config.unwrap();
    assert_eq!((process.env, process.cmd), (None, Some(vec!["sh".to_owned()])));
    let few = serde_json::json!({"rootfs": {"diff_ids": null}});
    assert!(matches!(
        ConfigFile::parse(few.to_string().as_bytes(), &manifest),
        Err(ManifestError::LayerCount { diff_ids: 0, layers: 1 })
    ));
    let windows = serde_json::json!({"os": "windows", "rootfs": {"diff_ids": [digest("d")]}});
    assert!(ConfigFile::parse(windows.to_string().as_bytes(), &manifest).is_err());
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Document::parse(&bytes, "", 10);
    }
}

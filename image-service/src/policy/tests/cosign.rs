//! Signatures that the real cosign made: tests/cosign/make says how.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::policy::{bundle::Envelope, bundles, claim, identity::SignedIdentity, key::PublicKey, statement};
use crate::{digest::Digest, reference::Reference};

/// What was in the registry.
pub(in crate::policy) struct Store(Value);

impl Store {
    pub(in crate::policy) fn new() -> Self {
        Self(serde_json::from_str(include_str!("../../../../tests/cosign/store.json")).unwrap())
    }

    pub(in crate::policy) fn key(&self, name: &str) -> PublicKey {
        PublicKey::parse(self.0["keys"][name].as_str().unwrap().as_bytes()).unwrap()
    }

    /// The key that the signatures of a repository are made with.
    fn key_of(&self, repository: &str) -> PublicKey {
        let name = repository.split('/').nth(1).unwrap().split('-').next().unwrap();
        self.key(if ["named", "told"].contains(&name) { "p256" } else { name })
    }

    fn repositories(&self) -> Vec<String> {
        self.0["repositories"].as_object().unwrap().keys().cloned().collect()
    }

    pub(in crate::policy) fn image(&self, repository: &str) -> Digest {
        self.0["repositories"][repository]["image"].as_str().unwrap().parse().unwrap()
    }

    fn content(&self, digest: &Value) -> Vec<u8> {
        self.0["content"][digest.as_str().unwrap()].as_str().unwrap().as_bytes().to_vec()
    }

    fn manifests(&self, repository: &str) -> Vec<Vec<u8>> {
        let manifests = self.0["repositories"][repository]["manifests"].as_array().unwrap();
        manifests.iter().map(|digest| self.content(digest)).collect()
    }

    /// The manifest of an artifact, and the bundle in it.
    pub(in crate::policy) fn bundle(&self, repository: &str) -> (Vec<u8>, Vec<u8>) {
        let found = self.manifests(repository).into_iter().find_map(|manifest| {
            let blob = bundles::read(&manifest).ok()??;
            let bundle = self.content(&Value::from(blob.digest.to_string()));
            assert!(blob.digest.matches(&bundle) && blob.size == bundle.len() as u64);
            Some((manifest, bundle))
        });
        found.expect(repository)
    }

    /// What was signed for a tag, and the signature.
    fn tagged(&self, repository: &str) -> Option<(Vec<u8>, Vec<u8>)> {
        self.manifests(repository).iter().find_map(|manifest| {
            let manifest: Value = serde_json::from_slice(manifest).unwrap();
            let layer = manifest["layers"].get(0)?;
            let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str()?;
            Some((self.content(&layer["digest"]), BASE64_STANDARD.decode(signature).unwrap()))
        })
    }
}

fn identity(text: &str) -> SignedIdentity {
    serde_json::from_str(text).unwrap()
}

/// Ed25519 alone is refused, for it is Ed25519ph.
#[test]
fn what_cosign_signs_counts() {
    let store = Store::new();
    let repositories = store.repositories();
    assert_eq!(repositories.len(), 14, "{repositories:?}");
    let (repository, any) = (identity(r#"{"type": "matchRepository"}"#), identity(r#"{"type": "matchDigest"}"#));
    for name in repositories {
        let key = store.key_of(&name);
        let digest = store.image(&name);
        let image: Reference = format!("hub.test/{name}:1").parse().unwrap();
        let other: Reference = "hub.test/other:1".parse().unwrap();
        if let Some((payload, signature)) = store.tagged(&name) {
            assert_eq!(key.verifies(&payload, &signature), !name.contains("ed25519"), "{name}");
            claim::check(&payload, claim::COSIGN, &digest, &image, &repository).unwrap();
            claim::check(&payload, claim::COSIGN, &digest, &other, &any).unwrap();
            claim::check(&payload, claim::COSIGN, &digest, &other, &repository).unwrap_err();
            continue;
        }
        let envelope = Envelope::parse(&store.bundle(&name).1).unwrap();
        let counts = |image: &Reference, identity: &SignedIdentity| {
            statement::check(envelope.unchecked(), &digest, image, identity)
        };
        assert_eq!(envelope.open(&[key]).is_some(), !name.contains("ed25519"), "{name}");
        match name.as_str() {
            "v3/told" => assert!(counts(&image, &any).unwrap_err().contains("https://hub.test/scanned/v1")),
            "v3/named" => {
                counts(&image, &repository).unwrap();
                assert!(counts(&other, &repository).unwrap_err().contains("hub.test/v3/named"));
                counts(&other, &any).unwrap();
            }
            _ => {
                counts(&other, &any).unwrap();
                assert!(counts(&image, &repository).unwrap_err().contains("matchDigest"));
            }
        }
    }
}

#[test]
fn keys_are_not_taken_for_each_other() {
    let store = Store::new();
    let envelope = Envelope::parse(&store.bundle("v3/p256").1).unwrap();
    let (own, others) = (store.key("p256"), ["p384", "rsa", "ed25519"].map(|name| store.key(name)));
    assert!(envelope.open(&others).is_none());
    let [first, ..] = others;
    assert_eq!(envelope.open(&[first, own]), Some(envelope.unchecked()), "one of the keys is enough");
    assert!(envelope.open(&[]).is_none());
}

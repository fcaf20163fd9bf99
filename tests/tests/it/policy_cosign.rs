//! Signatures that the real cosign made (tests/cosign/make says how), in Debian's registry, which keeps lists of what refers
//! to an image as tags, and in one that lists that itself.

use std::{fs, path::PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde_json::{Value, json};
use tonic::Code;
use tripod_tests::{DebianRegistry, Fault, Node, Registry, digest, tests};

use crate::policy::{refused, set_policy};

tests![
    what_cosign_signed,
    registries_list_what_refers_to_an_image,
    bundles_that_do_not_count,
    mirrors_without_signatures
];

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What was in the registry when cosign had signed.
struct Store(Value);

impl Store {
    fn new() -> Self {
        Self(serde_json::from_str(include_str!("../../cosign/store.json")).unwrap())
    }

    fn repositories(&self) -> Vec<String> {
        self.0["repositories"].as_object().unwrap().keys().cloned().collect()
    }

    fn image(&self, repository: &str) -> String {
        self.0["repositories"][repository]["image"].as_str().unwrap().to_owned()
    }

    /// Content of a repository by digest: its `manifests` or `blobs`, lists of manifests behind what is in them.
    fn content(&self, repository: &str, kind: &str) -> Vec<(String, Vec<u8>)> {
        let digests = self.0["repositories"][repository][kind].as_array().unwrap();
        let mut content: Vec<_> = digests
            .iter()
            .map(|digest| digest.as_str().unwrap())
            .map(|digest| {
                let text = self.0["content"][digest].as_str().unwrap();
                let bytes = if text.starts_with('{') { text.into() } else { BASE64_STANDARD.decode(text).unwrap() };
                (digest.to_owned(), bytes)
            })
            .collect();
        content.sort_by_key(|(_, bytes)| is_list(bytes));
        content
    }

    fn tags(&self, repository: &str) -> Vec<(String, String)> {
        let tags = self.0["repositories"][repository]["tags"].as_object().unwrap();
        tags.iter().map(|(tag, digest)| (tag.clone(), digest.as_str().unwrap().to_owned())).collect()
    }

    /// The bundle that cosign hung at the image.
    fn bundle(&self, repository: &str) -> Vec<u8> {
        let blobs = self.content(repository, "blobs").into_iter().map(|(_, blob)| blob);
        blobs.into_iter().find(|blob| blob.starts_with(b"{\"mediaType\":\"application/vnd.dev.sigstore")).unwrap()
    }

    /// The image, with the tag 1.
    fn push(&self, registry: &Registry, name: &str) -> String {
        let (repository, image) = ("v3/p256", self.image("v3/p256"));
        for (digest, blob) in self.content(repository, "blobs") {
            registry.push_blob(&digest, blob.into());
        }
        let manifests = self.content(repository, "manifests");
        let (_, manifest) = manifests.into_iter().find(|(digest, _)| *digest == image).unwrap();
        registry.push_manifest(&format!("{name}:1"), manifest.into());
        image
    }

    /// A policy for one scope, of one key.
    fn require(&self, node: &mut Node, scope: &str, key: &str, identity: &str) {
        let path = self.key(node, key);
        let required = json!([{"type": "sigstoreSigned", "keyPath": path, "signedIdentity": {"type": identity}}]);
        set_policy(node, &json!({scope: required}));
    }

    fn key(&self, node: &Node, name: &str) -> PathBuf {
        let path = node.folder().join(format!("{name}.pub"));
        fs::write(&path, self.0["keys"][name].as_str().unwrap()).unwrap();
        path
    }
}

fn is_list(manifest: &[u8]) -> bool {
    serde_json::from_slice::<Value>(manifest).is_ok_and(|manifest| manifest.get("manifests").is_some())
}

/// Hangs a bundle at something, as cosign does, with a blob whose size may be a lie. Gives the artifact's digest.
fn hang(registry: &Registry, repository: &str, subject: &str, bundle: &[u8], size: usize) -> String {
    let own = digest(bundle);
    registry.push_blob(&own, Bytes::copy_from_slice(bundle));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": BUNDLE, "digest": own, "size": size}],
        "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
        "annotations": {"dev.sigstore.bundle.content": "dsse-envelope"},
    });
    let manifest = manifest.to_string().into_bytes();
    let tag = &digest(&manifest)[7..20];
    registry.push_manifest(&format!("{repository}:{tag}"), manifest.clone().into());
    digest(&manifest)
}

/// 30.
async fn what_cosign_signed(node: &mut Node) {
    let store = Store::new();
    let registry = DebianRegistry::start(node.folder()).await;
    registry.serve_as("hub.test", &node.certs_dir());
    for repository in store.repositories() {
        for (digest, blob) in store.content(&repository, "blobs") {
            registry.push_blob(&repository, &digest, blob).await;
        }
        for (digest, manifest) in store.content(&repository, "manifests") {
            let media_type = if is_list(&manifest) { INDEX } else { MANIFEST };
            registry.push_manifest(&format!("{repository}@{digest}"), media_type, manifest.clone()).await;
            for (tag, _) in store.tags(&repository).into_iter().filter(|(_, tagged)| *tagged == digest) {
                registry.push_manifest(&format!("{repository}:{tag}"), media_type, manifest.clone()).await;
            }
        }
    }
    let key_of = |repository: &str| {
        let name = repository.split(['/', '-']).nth(1).unwrap().to_owned();
        if ["named", "told"].contains(&name.as_str()) { "p256".to_owned() } else { name }
    };
    store.require(node, "hub.test", "p256", "matchDigest");
    node.settings.raw("image.timeouts.attempts", "2");
    let cri = node.start().await;
    for repository in store.repositories() {
        let (key, scope) = (key_of(&repository), format!("hub.test/{repository}"));
        let (name, by_digest) = (format!("{scope}:1"), format!("{scope}@{}", store.image(&repository)));
        store.require(node, &scope, if key == "p256" { "p384" } else { "p256" }, "matchDigest");
        refused(&cri, &name, "another key").await;
        for identity in ["matchDigest", "matchRepository", "matchRepoDigestOrExact"] {
            store.require(node, &scope, &key, identity);
            let as_tag = repository.starts_with("v2/") || repository.ends_with("-tag");
            let why = match (key.as_str(), repository.as_str(), identity) {
                ("ed25519", ..) => "Ed25519ph",
                (_, "v3/told", _) => "says something else",
                (_, _, "matchRepoDigestOrExact") if as_tag || repository == "v3/named" => "was made for the identity",
                (_, _, "matchDigest") => "",
                (_, _, "matchRepository") if as_tag || repository == "v3/named" => "",
                _ => "names no image",
            };
            if why.is_empty() {
                cri.pull(&name).await.unwrap();
            } else {
                refused(&cri, &name, why).await;
            }
            if identity == "matchRepoDigestOrExact" {
                refused(&cri, &by_digest, why).await;
            }
        }
    }
}

async fn registries_list_what_refers_to_an_image(node: &mut Node) {
    let store = Store::new();
    let registry = node.registry().await;
    let image = store.push(&registry, "app");
    store.require(node, "registry.test", "p256", "matchDigest");
    node.settings.raw("image.timeouts.attempts", "1");
    let cri = node.start().await;
    let (name, list) = ("registry.test/app:1", "app:referrers");
    refused(&cri, name, "there is none").await;
    registry.list_referrers(1);
    refused(&cri, name, "there is none").await;
    assert_eq!(registry.served(list), 1);
    // Others' signatures, and other things said of the image, fill pages of one entry each.
    for repository in ["v3/p384", "v3/rsa", "v3/told"] {
        let bundle = store.bundle(repository);
        hang(&registry, "app", &image, &bundle, bundle.len());
    }
    refused(&cri, name, "another key").await;
    assert_eq!(registry.served(list), 4, "all pages are read");
    let bundle = store.bundle("v3/p256");
    let own = hang(&registry, "app", &image, &bundle, bundle.len());
    cri.pull(name).await.unwrap();
    cri.pull(&format!("registry.test/app@{image}")).await.unwrap();
    store.require(node, "registry.test", "rsa", "matchDigest");
    cri.pull(name).await.unwrap();
    store.require(node, "registry.test", "ed25519", "matchDigest");
    refused(&cri, name, "another key").await;

    // What cannot be had is no permission, and what a registry does not know is no error.
    store.require(node, "registry.test", "p256", "matchDigest");
    registry.fail(list, Fault::Status(500));
    let error = cri.pull(name).await.unwrap_err();
    assert!(error.message().starts_with("RegistryUnavailable"), "{error}");
    for status in [400, 404, 405] {
        registry.fail(list, Fault::Status(status));
        refused(&cri, name, "there is none").await;
    }
    registry.fail(list, Fault::None);
    registry.fail(&format!("app:{own}"), Fault::Status(404));
    refused(&cri, name, "listed, and not there").await;
    registry.fail(&format!("app:{own}"), Fault::None);
    for fault in [Fault::Status(500), Fault::Corrupt, Fault::Truncated] {
        registry.fail(&digest(&bundle), fault);
        let error = cri.pull(name).await.unwrap_err();
        assert_ne!(error.code(), Code::Ok, "{error}");
    }
    registry.fail(&digest(&bundle), Fault::None);
    cri.pull(name).await.unwrap();
}

async fn bundles_that_do_not_count(node: &mut Node) {
    let store = Store::new();
    let registry = node.registry().await;
    registry.list_referrers(100);
    store.require(node, "registry.test", "p256", "matchDigest");
    node.settings.raw("image.timeouts.attempts", "1");
    let cri = node.start().await;
    let bundle = store.bundle("v3/p256");
    let text = String::from_utf8(bundle.clone()).unwrap();
    let payload = text.split('"').find(|part| part.starts_with("eyJ")).unwrap();
    let statement = String::from_utf8(BASE64_STANDARD.decode(payload).unwrap()).unwrap();
    let with = |statement: &str| text.replace(payload, &BASE64_STANDARD.encode(statement)).into_bytes();
    let image = store.image("v3/p256");
    let of_another = digest(b"another");
    let cases = [
        ("changed", "changed afterwards", with(&statement.replace(&image[7..], &of_another[7..]))),
        ("spaced", "changed afterwards", with(&format!("{statement} "))),
        ("kind", "not of the type", text.replace("vnd.in-toto+json", "vnd.in-toto.x+json").into_bytes()),
        ("cut", "no bundle", bundle[..bundle.len() - 1].to_vec()),
        ("lines", "not base64", text.replace(payload, &format!("{payload}\\n")).into_bytes()),
        ("twice", "duplicate", text.replacen("\"payload\"", "\"payload\": \"e30=\", \"payload\"", 1).into_bytes()),
        ("empty", "no bundle", Vec::new()),
    ];
    for (repository, why, bundle) in cases {
        store.push(&registry, repository);
        hang(&registry, repository, &image, &bundle, bundle.len());
        refused(&cri, &format!("registry.test/{repository}:1"), why).await;
    }
    // Signed, but another image.
    store.push(&registry, "moved");
    let other = registry.push("moved:2", &tripod_tests::Image::busybox());
    hang(&registry, "moved", &other, &bundle, bundle.len());
    refused(&cri, "registry.test/moved:2", "it is for").await;
    refused(&cri, "registry.test/moved:1", "there is none").await;
    hang(&registry, "moved", &image, &bundle, bundle.len());
    cri.pull("registry.test/moved:1").await.unwrap();
    // Larger than it may be, by its own word and against it.
    let large = vec![b' '; (1 << 20) + 1];
    store.push(&registry, "large");
    hang(&registry, "large", &image, &large, large.len());
    refused(&cri, "registry.test/large:1", "larger than").await;
    store.push(&registry, "liar");
    hang(&registry, "liar", &image, &large, 10);
    let error = cri.pull("registry.test/liar:1").await.unwrap_err();
    assert!(error.code() == Code::Internal && error.message().contains("larger"), "{error}");
}

/// A mirror that has the image lists nothing that hangs at it, or knows no lists.
async fn mirrors_without_signatures(node: &mut Node) {
    let store = Store::new();
    let (registry, mirror) = (node.registry().await, Registry::start().await);
    let image = store.push(&registry, "app");
    store.push(&mirror, "app");
    let bundle = store.bundle("v3/p256");
    hang(&registry, "app", &image, &bundle, bundle.len());
    registry.list_referrers(10);
    let hosts = node.certs_dir().join("registry.test/hosts.toml");
    let settings = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        registry.address(),
        mirror.address()
    );
    fs::write(&hosts, settings).unwrap();
    store.require(node, "registry.test", "p256", "matchDigest");
    node.settings.raw("image.timeouts.attempts", "1");
    let cri = node.start().await;
    let name = "registry.test/app:1";
    cri.pull(name).await.unwrap();
    assert_eq!((mirror.served("app:1"), registry.served("app:1")), (1, 0), "the image came from the mirror");
    mirror.list_referrers(10);
    cri.pull(name).await.unwrap();
    assert_eq!(mirror.served("app:referrers"), 1);
    mirror.fail("app:referrers", Fault::Status(500));
    cri.pull(name).await.unwrap();
    // The registry has the last word.
    registry.fail("app:referrers", Fault::Status(500));
    let error = cri.pull(name).await.unwrap_err();
    assert!(error.message().starts_with("RegistryUnavailable"), "{error}");
}

//! Which images are let in: signatures by GnuPG's keys, made by skopeo; by cosign's, made by openssl and laid out here;
//! and programs that are asked. What cosign itself has signed is in `policy_cosign`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde_json::{Value, json};
use tonic::Code;
use tripod_tests::{Cri, DebianRegistry, Fault, Image, Layer, Node, Registry, Tree, digest, tests, tripod, with_input};

tests![
    a_signature_is_required,
    a_list_is_signed_as_a_whole_or_by_its_images,
    a_policy_is_read_at_each_pull,
    skopeo_signs_with_gpg,
    verifiers_are_asked,
    archives_meet_the_policy,
];

const REFUSED: &str = "SignatureValidationFailed: cannot pull ";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Runs a tool to its end and gives what it wrote.
fn tool(mut command: Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments);
    tool(command)
}

/// A key of openssl's, as cosign uses them.
struct Key {
    private: PathBuf,
    public: PathBuf,
}

impl Key {
    fn new(folder: &Path, name: &str) -> Self {
        let (private, public) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pub")));
        let (key, out) = (private.to_str().unwrap(), public.to_str().unwrap());
        run("openssl", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key]);
        run("openssl", &["pkey", "-in", key, "-pubout", "-out", out]);
        Self { private, public }
    }

    fn sign(&self, payload: &Path) -> String {
        let (key, payload) = (self.private.to_str().unwrap(), payload.to_str().unwrap());
        BASE64_STANDARD.encode(run("openssl", &["dgst", "-sha256", "-sign", key, payload]))
    }
}

/// What cosign signs.
fn claim(digest: &str, identity: &str) -> Vec<u8> {
    let critical = json!({"identity": {"docker-reference": identity}, "image": {"docker-manifest-digest": digest},
                          "type": "cosign container image signature"});
    serde_json::to_vec(&json!({"critical": critical, "optional": null})).unwrap()
}

/// Keeps signatures where cosign does: each is what was signed, and by what signature.
fn attach(registry: &Registry, repository: &str, signed: &str, signatures: &[(Vec<u8>, String)]) {
    let layers: Vec<Value> = signatures
        .iter()
        .map(|(payload, signature)| {
            let own = digest(payload);
            registry.push_blob(&own, payload.clone().into());
            json!({"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": own, "size": payload.len(),
                   "annotations": {"dev.cosignproject.cosign/signature": signature}})
        })
        .collect();
    registry.push_blob(&digest(b"{}"), Bytes::from_static(b"{}"));
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    registry.push_manifest(&tag(repository, signed), serde_json::to_vec(&manifest).unwrap().into());
}

fn tag(repository: &str, digest: &str) -> String {
    format!("{repository}:{}.sig", digest.replace(':', "-"))
}

/// Signs a claim.
fn signed(key: &Key, payload: Vec<u8>) -> (Vec<u8>, String) {
    let file = key.private.with_extension("payload");
    fs::write(&file, &payload).unwrap();
    (payload, key.sign(&file))
}

fn sigstore(key: &Key, identity: &str) -> Value {
    json!([{"type": "sigstoreSigned", "keyPath": key.public, "signedIdentity": {"type": identity}}])
}

/// Writes the node's policy: nothing but these scopes is let in.
pub(crate) fn set_policy(node: &mut Node, docker: &Value) {
    let file = node.folder().join("policy.json");
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": docker}});
    fs::write(&file, policy.to_string()).unwrap();
    node.settings.text("image.policy_file", file.to_str().unwrap());
}

/// An image like no other, and its one layer.
fn image(content: &str) -> (Image, String) {
    let layer = Layer::gzip(Tree::default().file("content", 0o644, content));
    let digest = layer.digest.clone();
    (Image::new(vec![layer]), digest)
}

pub(crate) async fn refused(cri: &Cri, name: &str, why: &str) {
    let error = cri.pull(name).await.expect_err(name);
    assert_eq!(error.code(), Code::Unknown, "the kubelet reads no other: {error}");
    let message = error.message();
    assert!(message.starts_with(REFUSED) && message.contains(name) && message.contains(why), "{why}: {message}");
}

/// 30.
async fn a_signature_is_required(node: &mut Node) {
    let registry = node.registry().await;
    registry.serve_as("other.test", &node.certs_dir());
    let (key, other) = (Key::new(node.folder(), "own"), Key::new(node.folder(), "other"));
    set_policy(
        node,
        &json!({"registry.test": sigstore(&key, "matchRepository"),
                             "registry.test/exact": sigstore(&key, "matchRepoDigestOrExact")}),
    );
    node.settings.raw("image.timeouts.attempts", "2");
    node.settings.raw("image.timeouts.backoff_milliseconds", "1");
    let cri = node.start().await;
    let push = |name: &str| {
        let (image, layer) = image(name);
        (registry.push(name, &image), layer)
    };

    let (plain, plain_layer) = push("plain:1");
    refused(&cri, "registry.test/plain:1", "there is none").await;
    refused(&cri, &format!("registry.test/plain@{plain}"), "there is none").await;
    refused(&cri, "other.test/plain:1", "rejects it").await;
    assert_eq!(registry.served("plain:1"), 1, "what is rejected is not even asked for");
    attach(&registry, "plain", &plain, &[]);
    refused(&cri, "registry.test/plain:1", "there is none").await;

    let (good, _) = push("good:1");
    let name = "registry.test/good";
    let signature = signed(&key, claim(&good, name));
    attach(&registry, "good", &good, &[signed(&other, claim(&good, name)), signature.clone()]);
    cri.pull("registry.test/good:1").await.unwrap();
    cri.pull(&format!("registry.test/good@{good}")).await.unwrap();

    let (bad, bad_layer) = push("bad:1");
    let claimed = |signature: (Vec<u8>, String)| attach(&registry, "bad", &bad, &[signature]);
    let name = "registry.test/bad";
    let pulled = "registry.test/bad:1";
    claimed(signed(&other, claim(&bad, name)));
    refused(&cri, pulled, "another key").await;
    claimed(signature);
    refused(&cri, pulled, "not for").await;
    claimed(signed(&key, claim(&bad, "registry.test/good")));
    refused(&cri, pulled, "identity").await;
    let (_, real) = signed(&key, claim(&bad, "registry.test/good"));
    claimed((claim(&bad, name), real));
    refused(&cri, pulled, "changed").await;
    claimed(signed(&key, b"{}".to_vec()));
    refused(&cri, pulled, "no claim").await;
    claimed((claim(&bad, name), "%".to_owned()));
    refused(&cri, pulled, "annotation").await;

    // What cannot be had is no permission, and no refusal either.
    claimed(signed(&key, claim(&bad, name)));
    registry.fail(&tag("bad", &bad), Fault::Status(500));
    let error = cri.pull(pulled).await.unwrap_err();
    assert!(error.message().starts_with("RegistryUnavailable"), "{error}");
    registry.fail(&tag("bad", &bad), Fault::None);
    let blob = digest(&claim(&bad, name));
    for fault in [Fault::Status(500), Fault::Status(404), Fault::Corrupt, Fault::Truncated] {
        registry.fail(&blob, fault);
        cri.pull(pulled).await.unwrap_err();
    }
    assert_eq!((registry.served(&bad_layer), registry.served(&plain_layer)), (0, 0), "no layer of what was refused");
    registry.fail(&blob, Fault::None);
    cri.pull(pulled).await.unwrap();

    let (exact, _) = push("exact:1");
    attach(&registry, "exact", &exact, &[signed(&key, claim(&exact, "registry.test/exact"))]);
    refused(&cri, "registry.test/exact:1", "identity").await;
    attach(&registry, "exact", &exact, &[signed(&key, claim(&exact, "registry.test/exact:2"))]);
    refused(&cri, "registry.test/exact:1", "identity").await;
    cri.pull(&format!("registry.test/exact@{exact}")).await.unwrap();
    attach(&registry, "exact", &exact, &[signed(&key, claim(&exact, "registry.test/exact:1"))]);
    cri.pull("registry.test/exact:1").await.unwrap();
}

async fn a_list_is_signed_as_a_whole_or_by_its_images(node: &mut Node) {
    let registry = node.registry().await;
    let key = Key::new(node.folder(), "own");
    set_policy(node, &json!({"registry.test": sigstore(&key, "matchRepository")}));
    let (image, _) = image("listed");
    let own = registry.push("multi:own", &image);
    let (architecture, foreign) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let entry = |digest: &str, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": digest, "size": image.manifest().len(),
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let foreign_digest = format!("sha256:{}", "0".repeat(64));
    let list = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                      "manifests": [entry(&foreign_digest, foreign), entry(&own, architecture)]});
    let top = registry.push_manifest("multi:1", serde_json::to_vec(&list).unwrap().into());
    let cri = node.start().await;
    let (name, repository) = ("registry.test/multi:1", "registry.test/multi");
    refused(&cri, name, &own).await;
    // The signature of an image that this host does not run says nothing about the one that it does.
    attach(&registry, "multi", &foreign_digest, &[signed(&key, claim(&foreign_digest, repository))]);
    refused(&cri, name, &top).await;
    attach(&registry, "multi", &top, &[signed(&key, claim(&top, repository))]);
    cri.pull(name).await.unwrap();
    attach(&registry, "multi", &top, &[]);
    refused(&cri, name, &own).await;
    attach(&registry, "multi", &own, &[signed(&key, claim(&own, repository))]);
    cri.pull(name).await.unwrap();
}

async fn a_policy_is_read_at_each_pull(node: &mut Node) {
    let registry = node.registry().await;
    registry.push("app:1", &image("app").0);
    let file = node.folder().join("policy.json");
    node.settings.text("image.policy_file", file.to_str().unwrap());
    // Without the file nothing is let in, and the daemon runs.
    let cri = node.start().await;
    let name = "registry.test/app:1";
    let error = cri.pull(name).await.unwrap_err();
    assert!(error.code() == Code::FailedPrecondition && error.message().contains("policy.json"), "{error}");
    let write = |policy: Value| fs::write(&file, policy.to_string()).unwrap();
    write(json!({"default": [{"type": "insecureAcceptAnything"}]}));
    cri.pull(name).await.unwrap();
    write(json!({"default": [{"type": "reject"}]}));
    refused(&cri, name, "default").await;
    assert!(cri.image(name).await.is_some(), "what is here stays");
    write(json!({"default": [{"type": "sigstoreSigned", "keyPath": "/no/such/key"}]}));
    let error = cri.pull(name).await.unwrap_err();
    assert!(error.code() == Code::FailedPrecondition && error.message().contains("/no/such/key"), "{error}");
    write(json!({"default": [{"type": "sigstoreSigned", "fulcio": {}}]}));
    let error = cri.pull(name).await.unwrap_err();
    assert!(error.code() == Code::FailedPrecondition && error.message().contains("fulcio"), "{error}");
    let log = fs::read_to_string(node.folder().join("daemon.log")).unwrap();
    assert!(log.contains("no image can be pulled until this is mended"), "said at the start");
}

/// An image in Debian's docker-registry, a folder with settings of skopeo's, and how skopeo is called to sign.
async fn skopeo(node: &Node, settings: &str, sign: &[&str], identity: &str) -> (DebianRegistry, Command) {
    let registry = DebianRegistry::start(node.folder()).await;
    registry.serve_as("hub.test", &node.certs_dir());
    registry.push("team/app:1", &image("signed").0).await;
    let folder = node.folder().join("registries.d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("all.yaml"), format!("default-docker:\n  {settings}\n")).unwrap();
    let at = format!("docker://{}/team/app:1", registry.address());
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").arg("--registries.d").arg(&folder).arg("copy").args(sign);
    command.args(["--src-tls-verify=false", "--dest-tls-verify=false", "--sign-identity", identity, &at, &at]);
    (registry, command)
}

/// GnuPG with keys of its own, whose agent ends with it.
struct Gpg(PathBuf);

impl Gpg {
    fn new(node: &Node) -> Self {
        // The agent's socket has a short path.
        let home = PathBuf::from("/run/gnupg-test");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(node.folder().exists());
        Self(home)
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", &self.0).args(["--batch", "--passphrase", "", "--pinentry-mode", "loopback"]);
        command.args(arguments);
        tool(command)
    }

    fn key(&self, name: &str) {
        self.gpg(&["--quick-generate-key", name, "ed25519", "sign", "never"]);
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", &self.0).args(["--kill", "all"]).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn skopeo_signs_with_gpg(node: &mut Node) {
    let gpg = Gpg::new(node);
    let (own, other) = ("own@test.invalid", "other@test.invalid");
    gpg.key(own);
    gpg.key(other);
    let (store, keys) = (node.folder().join("store"), node.folder().join("keys"));
    fs::create_dir_all(&keys).unwrap();
    fs::write(keys.join("own.asc"), gpg.gpg(&["--armor", "--export", own])).unwrap();
    fs::write(keys.join("other.gpg"), gpg.gpg(&["--export", other])).unwrap();
    let required =
        |key: &str| json!({"hub.test/team": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": keys.join(key)}]});
    set_policy(node, &required("own.asc"));
    let settings = format!("sigstore-staging: file://{}", store.display());
    let (_registry, mut sign) = skopeo(node, &settings, &["--sign-by", own], "hub.test/team/app:1").await;
    sign.env("GNUPGHOME", &gpg.0);
    node.settings.raw("image.lookaside", &format!("{{ \"hub.test\" = {:?} }}", format!("file://{}", store.display())));
    node.settings.raw("image.timeouts.attempts", "1");
    let cri = node.start().await;
    let name = "hub.test/team/app:1";
    refused(&cri, name, "there is none").await;
    tool(sign);
    cri.pull(name).await.unwrap();
    set_policy(node, &required("other.gpg"));
    refused(&cri, name, "another key").await;
    set_policy(node, &required("own.asc"));
    let by_digest = cri.image(name).await.unwrap().repo_digests[0].clone();
    cri.pull(&by_digest).await.unwrap();

    // What lies there may be anything.
    let place =
        store.join(format!("team/{}", by_digest.rsplit_once('/').unwrap().1.replace(':', "="))).join("signature-1");
    let good = fs::read(&place).unwrap();
    let mut changed = good.clone();
    let at = changed.windows(8).position(|bytes| bytes == b"hub.test").unwrap_or(changed.len() / 2);
    changed[at] ^= 1;
    fs::write(&place, &changed).unwrap();
    refused(&cri, name, "none that there is counts").await;
    fs::write(&place, "text").unwrap();
    refused(&cri, name, "no signature of OpenPGP").await;
    // Signed by the right key, but for another image and as another thing.
    let payload = node.folder().join("payload");
    fs::write(&payload, claim(&format!("sha256:{}", "0".repeat(64)), name)).unwrap();
    let signature = gpg.gpg(&["--local-user", own, "--output", "-", "--sign", payload.to_str().unwrap()]);
    fs::write(&place, signature).unwrap();
    refused(&cri, name, "type").await;
    fs::write(place.with_file_name("signature-2"), &good).unwrap();
    cri.pull(name).await.unwrap();

    // The same from a server; the registry in memory stands in for one, and takes any path for a manifest's.
    node.stop().await;
    let server = Registry::start().await;
    let base = format!("http://{}/v2/store", server.address());
    node.settings.raw("image.lookaside", &format!("{{ default = {base:?} }}"));
    let cri = node.start().await;
    refused(&cri, name, "there is none").await;
    server.push_manifest("store/team:signature-1", good.into());
    cri.pull(name).await.unwrap();
    server.fail("store/team:signature-1", Fault::Status(500));
    let error = cri.pull(name).await.unwrap_err();
    assert!(error.message().starts_with("RegistryUnavailable"), "{error}");
    // Without an agent nothing of GnuPG is left.
    drop(gpg);
}

async fn verifiers_are_asked(node: &mut Node) {
    let registry = node.registry().await;
    let (image, layer) = image("verified");
    let digest = registry.push("app:1", &image);
    let folder = node.folder().join("verifiers");
    node.settings.text("image.verifiers.bin_dir", folder.to_str().unwrap());
    node.settings.raw("image.verifiers.max_verifiers", "2");
    node.settings.raw("image.verifiers.per_verifier_timeout_seconds", "2");
    let cri = node.start().await;
    let name = "registry.test/app:1";
    let failed = async |why: &str| {
        let error = cri.pull(name).await.unwrap_err();
        assert!(error.code() == Code::FailedPrecondition && error.message().contains(why), "{error}");
    };
    failed("verifiers").await;
    fs::create_dir(&folder).unwrap();
    let program = |name: &str, script: &str| {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let seen = node.folder().join("seen");
    program("10-first", &format!("echo \"$@\" > {0}; cat >> {0}; echo fine", seen.display()));
    program("20-second", "echo 'too old' ; exit 3");
    refused(&cri, name, "20-second refuses it (exit code 3): too old").await;
    let text = fs::read_to_string(&seen).unwrap();
    let (arguments, descriptor) = text.split_once('\n').unwrap();
    assert_eq!(
        arguments,
        format!("-name {name} -digest {digest} -stdin-media-type application/vnd.oci.descriptor.v1+json")
    );
    let descriptor: Value = serde_json::from_str(descriptor).unwrap();
    assert_eq!(descriptor, json!({"mediaType": MANIFEST, "digest": digest, "size": image.manifest().len()}));
    assert_eq!(registry.served(&layer), 0);
    program("20-second", "kill -9 $$");
    refused(&cri, name, "signal 9").await;
    // It and what it has started end.
    program("20-second", "sleep 1000 & sleep 1000");
    failed("within 2 s").await;
    program("20-second", "exit 0");
    cri.pull(name).await.unwrap();
    program("30-third", "exit 0");
    failed("max_verifiers").await;
}

async fn archives_meet_the_policy(node: &mut Node) {
    let registry = node.registry().await;
    registry.push("app:1", &image("app").0);
    let file = node.folder().join("policy.json");
    node.settings.text("image.policy_file", file.to_str().unwrap());
    let write = |policy: Value| fs::write(&file, policy.to_string()).unwrap();
    let any = json!([{"type": "insecureAcceptAnything"}]);
    write(json!({"default": any}));
    let cri = node.start().await;
    cri.pull("registry.test/app:1").await.unwrap();
    let layout = with_input(tripod(&["image", "save", "registry.test/app:1"]), b"").await.1;
    cri.remove_image("registry.test/app:1").await.unwrap();
    let load = async || with_input(tripod(&["image", "load"]), &layout).await;
    write(json!({"default": [{"type": "reject"}], "transports": {"docker": {"": any}, "docker-archive": {"": any}}}));
    let (code, _, error) = load().await;
    assert!(code == 1 && error.contains("rejects"), "{error}");
    write(json!({"default": any, "transports": {"oci-archive": {"": [{"type": "sigstoreSigned", "keyPath": "/k"}]}}}));
    let (code, _, error) = load().await;
    assert!(code == 1 && error.contains("archives have none"), "{error}");
    assert!(cri.all_images().await.is_empty());
    write(json!({"default": [{"type": "reject"}], "transports": {"oci-archive": {"": any}}}));
    let (code, _, error) = load().await;
    assert!(code == 0, "{error}");
    assert_eq!(cri.all_images().await.len(), 1);
}

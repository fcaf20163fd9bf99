//! The policy's file: what it may say, and which of it is meant for an image.

use std::{
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{PolicyError, identity::SignedIdentity};
use crate::reference::Reference;

/// Bytes of the file.
const MAX_FILE: u64 = 4 << 20;
/// Ways for images to come in that the format knows, besides registries.
const OTHER_TRANSPORTS: [&str; 10] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];
/// Those by which archives come in here.
const ARCHIVES: [&str; 2] = ["docker-archive", "oci-archive"];

/// What is required of images.
#[derive(Debug)]
pub(crate) struct Policy {
    path: PathBuf,
    default: Vec<Requirement>,
    transports: Unique<Unique<Vec<Requirement>>>,
}

/// One thing that an image must meet.
#[derive(Debug)]
pub(crate) enum Requirement {
    Accept,
    Reject,
    Sigstore(Signed),
    SignedBy(Signed),
}

/// A signature by one of these keys, of an identity that fits.
#[derive(Debug)]
pub(crate) struct Signed {
    pub keys: Vec<KeySource>,
    pub identity: SignedIdentity,
}

/// Where a key is.
#[derive(Debug)]
pub(crate) enum KeySource {
    File(PathBuf),
    /// In the policy itself.
    Data(Vec<u8>),
}

/// A map in which each key stands once: of two entries for one scope, nobody could tell which counts.
#[derive(Debug)]
pub(super) struct Unique<V>(Vec<(String, V)>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Unique<V> {
    pub(super) fn entries(&self) -> &[(String, V)] {
        &self.0
    }

    fn get(&self, key: &str) -> Option<&V> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Unique::default();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.get(&key).is_some() {
                        return Err(serde::de::Error::custom(format!("{key:?} is there twice")));
                    }
                    entries.0.push((key, value));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<Written>,
    #[serde(default)]
    transports: Unique<Unique<Vec<Written>>>,
}

/// A requirement as it stands in the file.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Written {
    InsecureAcceptAnything(Nothing),
    Reject(Nothing),
    SigstoreSigned(Box<WrittenSigned>),
    SignedBy(Box<WrittenSigned>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Every field that either kind of signature has in the format, so that each can be refused by name where it is not built.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenSigned {
    key_type: Option<String>,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    #[serde(default)]
    signed_identity: SignedIdentity,
    fulcio: Option<IgnoredAny>,
    pki: Option<IgnoredAny>,
    rekor_public_key_path: Option<IgnoredAny>,
    rekor_public_key_paths: Option<IgnoredAny>,
    rekor_public_key_data: Option<IgnoredAny>,
    rekor_public_key_datas: Option<IgnoredAny>,
}

/// Reads a policy and refuses whatever in it would not be held.
pub(crate) fn read(path: &Path) -> Result<Policy, PolicyError> {
    let text = super::key::read(path, MAX_FILE)?;
    parse(&text, path).map_err(|why| PolicyError::Invalid { path: path.to_owned(), why })
}

pub(super) fn parse(text: &[u8], path: &Path) -> Result<Policy, String> {
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let default = requirements(file.default, "default")?;
    let mut transports = Unique::default();
    for (transport, scopes) in file.transports.0 {
        if transport != "docker" && !OTHER_TRANSPORTS.contains(&transport.as_str()) {
            return Err(format!("transports: {transport:?} is none that the format knows"));
        }
        let mut known = Unique::default();
        for (scope, written) in scopes.0 {
            let place = format!("transports.{transport}.{scope:?}");
            let scope = match transport.as_str() {
                "docker" => docker_scope(&scope).map_err(|why| format!("{place}: {why}"))?,
                _ if ARCHIVES.contains(&transport.as_str()) && !scope.is_empty() => {
                    return Err(format!("{place}: archives are read as a stream whose path nobody knows: use \"\""));
                }
                _ => scope,
            };
            if known.get(&scope).is_some() {
                return Err(format!("{place}: the scope is there twice"));
            }
            known.0.push((scope, requirements(written, &place)?));
        }
        transports.0.push((transport, known));
    }
    Ok(Policy { path: path.to_owned(), default, transports })
}

fn requirements(written: Vec<Written>, place: &str) -> Result<Vec<Requirement>, String> {
    if written.is_empty() {
        return Err(format!("{place}: it has no requirement; say \"reject\" or \"insecureAcceptAnything\""));
    }
    let within = |(number, one): (usize, Written)| requirement(one).map_err(|why| format!("{place}[{number}]: {why}"));
    written.into_iter().enumerate().map(within).collect()
}

fn requirement(written: Written) -> Result<Requirement, String> {
    Ok(match written {
        Written::InsecureAcceptAnything(_) => Requirement::Accept,
        Written::Reject(_) => Requirement::Reject,
        Written::SigstoreSigned(signed) => {
            if signed.key_type.is_some() {
                return Err("sigstoreSigned has no keyType".into());
            }
            Requirement::Sigstore(signed.keys("sigstoreSigned")?)
        }
        Written::SignedBy(signed) => {
            match signed.key_type.as_deref() {
                Some("GPGKeys") => {}
                Some(other) => {
                    return Err(format!("signedBy: keyType {other:?} is not built into tripod, but \"GPGKeys\""));
                }
                None => return Err("signedBy: keyType is missing (\"GPGKeys\")".into()),
            }
            if signed.signed_identity.accepts_any() {
                return Err(
                    "signedBy: its signatures say what they are for; matchDigest is for sigstoreSigned only".into()
                );
            }
            if !super::gpgv::is_installed() {
                return Err("signedBy needs the program gpgv: install it (Debian: gpgv; others: gnupg2)".into());
            }
            Requirement::SignedBy(signed.keys("signedBy")?)
        }
    })
}

impl WrittenSigned {
    fn keys(self, kind: &str) -> Result<Signed, String> {
        let unbuilt = [
            ("fulcio", self.fulcio),
            ("pki", self.pki),
            ("rekorPublicKeyPath", self.rekor_public_key_path),
            ("rekorPublicKeyPaths", self.rekor_public_key_paths),
            ("rekorPublicKeyData", self.rekor_public_key_data),
            ("rekorPublicKeyDatas", self.rekor_public_key_datas),
        ];
        if let Some((name, _)) = unbuilt.iter().find(|(_, value)| value.is_some()) {
            return Err(format!("{kind}: {name} is not built into tripod, which knows signatures by keys only"));
        }
        let given =
            [self.key_path.is_some(), self.key_paths.is_some(), self.key_data.is_some(), self.key_datas.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(format!(
                "{kind}: exactly one of keyPath, keyPaths, keyData and keyDatas says which keys count"
            ));
        }
        let files =
            self.key_path.into_iter().chain(self.key_paths.unwrap_or_default()).map(|path| Ok(KeySource::File(path)));
        let data = self.key_data.into_iter().chain(self.key_datas.unwrap_or_default());
        let data =
            data.map(|text| super::key::base64(&text).map(KeySource::Data).ok_or("keyData is not base64".to_owned()));
        let keys: Vec<_> = files.chain(data).collect::<Result<_, String>>().map_err(|why| format!("{kind}: {why}"))?;
        if keys.is_empty() {
            return Err(format!("{kind}: the list of keys is empty"));
        }
        self.signed_identity.validate().map_err(|why| format!("{kind}: signedIdentity: {why}"))?;
        Ok(Signed { keys, identity: self.signed_identity })
    }
}

/// A scope of registries in the form in which it is looked for. One that could never match is a mistake that somebody
/// would trust in.
fn docker_scope(scope: &str) -> Result<String, String> {
    if scope.is_empty() {
        return Ok(String::new());
    }
    let (host, rest) = scope.split_once('/').map_or((scope, None), |(host, rest)| (host, Some(rest)));
    let wild = host.strip_prefix("*.");
    if wild.is_some() && rest.is_some() {
        return Err("a wildcard is for whole domains, as *.example.com".into());
    }
    let name = wild.unwrap_or(host);
    let full = wild.is_some() || name == "localhost" || name.contains(['.', ':']);
    if !full || name.is_empty() || name.contains('*') || scope.ends_with('/') || scope.contains("//") {
        return Err("it fits no image: scopes begin with the registry, as docker.io/library/busybox".into());
    }
    let host = host.to_ascii_lowercase();
    Ok(rest.map_or_else(|| host.clone(), |rest| format!("{host}/{rest}")))
}

/// Under which scopes an image is looked for, the closest first: itself, its repository, the namespaces above, the
/// registry, and the domains that this is in.
fn scopes(reference: &Reference) -> Vec<String> {
    let host = reference.registry().to_ascii_lowercase();
    let own = reference.key();
    let mut scopes = vec![format!("{host}{}", &own[reference.registry().len()..])];
    let mut name = format!("{host}/{}", reference.repository());
    loop {
        scopes.push(name.clone());
        let Some((parent, _)) = name.rsplit_once('/') else { break };
        name = parent.to_owned();
    }
    if !host.starts_with('[') {
        let mut domain = host.split(':').next().unwrap_or_default();
        while let Some((_, parent)) = domain.split_once('.') {
            scopes.push(format!("*.{parent}"));
            domain = parent;
        }
    }
    scopes
}

/// The entry of a map by scopes of registries that fits an image best.
pub(super) fn closest<'a, V>(reference: &Reference, entry: impl Fn(&str) -> Option<&'a V>) -> Option<(String, &'a V)> {
    scopes(reference).into_iter().find_map(|scope| entry(&scope).map(|value| (scope, value)))
}

impl Policy {
    /// What is required of an image of a registry, with the place in the file where that stands.
    pub(crate) fn registry(&self, reference: &Reference) -> (String, &[Requirement]) {
        let Some(scopes) = self.transports.get("docker") else { return self.otherwise() };
        match closest(reference, |scope| scopes.get(scope)) {
            Some((scope, requirements)) => (self.place("docker", &scope), requirements),
            None => self.transport("docker"),
        }
    }

    /// What is required of what comes in by a transport and has no scope of its own.
    pub(crate) fn transport(&self, transport: &str) -> (String, &[Requirement]) {
        match self.transports.get(transport).and_then(|scopes| scopes.get("")) {
            Some(requirements) => (self.place(transport, ""), requirements),
            None => self.otherwise(),
        }
    }

    fn otherwise(&self) -> (String, &[Requirement]) {
        (format!("{}: default", self.path.display()), &self.default)
    }

    fn place(&self, transport: &str, scope: &str) -> String {
        format!("{}: transports.{transport}.{scope:?}", self.path.display())
    }
}

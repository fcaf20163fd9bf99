//! Public keys of cosign, and signatures by them.

use std::{
    io::{self, Read},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};

use super::{PolicyError, file::KeySource};

/// Bytes of a key's file; keyrings are larger than keys.
pub(super) const MAX_KEY: u64 = 4 << 20;

/// The ways in which a kind of key signs.
type Algorithms = &'static [&'static dyn VerificationAlgorithm];

/// What a SubjectPublicKeyInfo begins with, by algorithm, and how long the key after it is. Each has one encoding in DER.
/// With P-384, cosign hashed by SHA-256 once, and hashes by SHA-384 now.
const FIXED: [(&[u8], usize, Algorithms); 3] = [
    (
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
        65,
        &[&ECDSA_P256_SHA256_ASN1],
    ),
    (
        b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
        97,
        &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P384_SHA256_ASN1],
    ),
    (b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 32, &[&ED25519]),
];
const WITH_RSA: Algorithms = &[&RSA_PKCS1_2048_8192_SHA256];
/// Of RSA, behind the length of the whole: the algorithm, and the tag of the key.
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82";

/// A key by which signatures are told.
#[derive(Debug)]
pub(super) struct PublicKey {
    algorithms: Algorithms,
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads a key in PEM.
    pub(super) fn load(source: &KeySource) -> Result<Self, PolicyError> {
        let (name, text) = bytes(source)?;
        Self::parse(&text).map_err(|why| PolicyError::Key(name, why.to_owned()))
    }

    pub(super) fn parse(pem: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(pem).map_err(|_| "it is no key in PEM")?;
        let inner = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----");
        let inner = inner.and_then(|text| text.strip_suffix("-----END PUBLIC KEY-----"));
        let inner = inner.ok_or("it is not one public key in PEM (BEGIN PUBLIC KEY)")?;
        let der = base64(inner).ok_or("it is broken inside: not base64")?;
        for (prefix, length, algorithms) in FIXED {
            if let Some(key) = der.strip_prefix(prefix)
                && key.len() == length
            {
                return Ok(Self { algorithms, key: key.to_vec() });
            }
        }
        let key =
            rsa(&der).ok_or("its algorithm is none of ECDSA (P-256, P-384), RSA (2048 bits or more) and Ed25519")?;
        Ok(Self { algorithms: WITH_RSA, key: key.to_vec() })
    }

    fn is_ed25519(&self) -> bool {
        self.key.len() == FIXED[2].1
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm| UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok();
        self.algorithms.iter().any(|algorithm| by(*algorithm))
    }
}

/// Why a signature that none of the keys made does not count.
pub(super) fn unverified(keys: &[PublicKey]) -> String {
    let why = "one was made with another key, or changed afterwards";
    match keys.iter().any(PublicKey::is_ed25519) {
        // Newer versions of cosign sign a hash by Ed25519, which is another signature than that of the whole.
        true => {
            format!("{why}, or is Ed25519ph, which is not built: cosign makes such ones by Ed25519; take an ECDSA key")
        }
        false => why.to_owned(),
    }
}

/// The key in a SubjectPublicKeyInfo of RSA, of the sizes whose lengths take two bytes.
fn rsa(der: &[u8]) -> Option<&[u8]> {
    let length = |bytes: &[u8]| Some(usize::from(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?)));
    let body = der.strip_prefix(b"\x30\x82")?;
    if length(body)? != body.len() - 2 {
        return None;
    }
    let bits = body[2..].strip_prefix(RSA)?;
    if length(bits)? != bits.len() - 2 {
        return None;
    }
    bits[2..].strip_prefix(b"\x00")
}

/// Bytes of base64, which may stand in several lines.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(text).ok()
}

/// What a key's source has, and what to call it.
pub(super) fn bytes(source: &KeySource) -> Result<(String, Vec<u8>), PolicyError> {
    match source {
        KeySource::File(path) => Ok((path.display().to_string(), read(path, MAX_KEY)?)),
        KeySource::Data(data) => Ok(("keyData".to_owned(), data.clone())),
    }
}

/// Reads a file of the operator's, within a limit.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(io::Error::other(format!("it is larger than {limit} bytes"))));
    }
    Ok(bytes)
}

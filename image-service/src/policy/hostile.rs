//! What lies beside an image goes through all that reads it, for [`crate::fuzzing`].
#![allow(clippy::unwrap_used, reason = "what is wrong must end in a panic")]

use super::{
    MAX_BYTES, MAX_REASON, MAX_SIGNATURES, Reasons,
    bundle::Envelope,
    bundles, claim,
    identity::SignedIdentity,
    key::{self, PublicKey},
    statement,
};
use crate::{digest::Digest, reference::Reference};

/// A key whose private half nobody has.
const KEY: &[u8] = b"-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEL9pTvDohmu/W4AYGZXIwzDVhm0Ds
dcBYcCWPg2ewXqNH2vA7e2A/g3ysXUML2uc6SkBcy0WAXYnCo7tity2hkw==
-----END PUBLIC KEY-----";

/// Nothing counts that is not signed, and no reason is longer than a log can bear.
pub(crate) fn bundle(bytes: &[u8]) {
    let key = PublicKey::parse(KEY).unwrap();
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert!(envelope.open(&[key]).is_none(), "it is signed by a key that has signed nothing");
        said(envelope.unchecked());
    }
    said(bytes);
}

fn said(text: &[u8]) {
    let digest = Digest::of(b"manifest");
    let image: Reference = "a.example/app:1".parse().unwrap();
    let identity = SignedIdentity::default();
    for counts in [
        statement::check(text, &digest, &image, &identity),
        claim::check(text, claim::COSIGN, &digest, &image, &identity),
    ] {
        let mut reasons = Reasons::default();
        counts.unwrap_or_else(|why| reasons.push(&why));
        assert!(reasons.0.iter().all(|why| why.len() <= 4 * MAX_REASON && !why.contains('\n')));
    }
}

/// What is found is within its limits.
pub(crate) fn found(bytes: &[u8]) {
    let mut found = Vec::new();
    if bundles::WANTED.take(bytes, &mut found).is_ok() {
        assert!(found.len() <= MAX_SIGNATURES);
    }
    if let Ok(Some(blob)) = bundles::read(bytes) {
        assert!(blob.size <= MAX_BYTES);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = key::base64(text);
    }
}

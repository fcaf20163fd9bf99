//! A bundle of sigstore's, as cosign makes them since its version 3: an envelope (DSSE) with a statement (in-toto) and
//! its signature.
//!
//! What else is in a bundle, as certificates and entries of logs, is for signatures without a key of one's own. By a key
//! of the operator's nothing of that says anything, and it is passed over.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use serde::{Deserialize, de::IgnoredAny};

use super::key::PublicKey;

/// Of a bundle, of the blob that it is in, and of the artifact that this hangs at.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What is in the envelope.
const STATEMENT: &str = "application/vnd.in-toto+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: String,
    #[serde(default)]
    dsse_envelope: Option<WrittenEnvelope>,
    #[serde(default)]
    message_signature: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenEnvelope {
    payload: String,
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Deserialize)]
struct WrittenSignature {
    sig: String,
}

/// A statement of which nobody knows yet who made it.
#[derive(Debug)]
pub(crate) struct Envelope {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Envelope {
    pub(crate) fn parse(bundle: &[u8]) -> Result<Self, String> {
        let written: Written =
            serde_json::from_slice(bundle).map_err(|error| format!("one is no bundle of sigstore's: {error}"))?;
        if written.media_type != MEDIA_TYPE {
            return Err(format!("one is a bundle of another type than {MEDIA_TYPE}"));
        }
        let envelope = match (written.dsse_envelope, written.message_signature) {
            (Some(envelope), None) => envelope,
            (None, Some(_)) => return Err("one is a signature of a file, not a statement about an image".into()),
            (Some(_), Some(_)) => return Err("one has two contents, so that it is open to doubt what it says".into()),
            (None, None) => return Err("one is empty".into()),
        };
        if envelope.payload_type != STATEMENT {
            return Err(format!("what one has in it is not of the type {STATEMENT}"));
        }
        let [signature] = envelope.signatures.as_slice() else {
            return Err(format!("one has {} signatures, not one", envelope.signatures.len()));
        };
        let payload = base64(&envelope.payload).ok_or("one has a payload that is not base64")?;
        let signature = base64(&signature.sig).ok_or("one has a signature that is not base64")?;
        Ok(Self { payload, signature })
    }

    /// What was signed by one of these keys.
    pub(crate) fn open(&self, keys: &[PublicKey]) -> Option<&[u8]> {
        let signed = authenticated(STATEMENT, &self.payload);
        keys.iter().any(|key| key.verifies(&signed, &self.signature)).then_some(self.payload.as_slice())
    }

    /// What would be looked at if it were signed.
    #[cfg(any(test, fuzzing))]
    pub(super) fn unchecked(&self) -> &[u8] {
        &self.payload
    }
}

/// What a signature of an envelope is made of ("PAE"): the type is signed with the payload, and lengths keep them apart.
fn authenticated(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Either alphabet, as the format allows, and nothing between the letters.
fn base64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).or_else(|_| BASE64_URL_SAFE.decode(text)).ok()
}

#[cfg(test)]
mod tests;

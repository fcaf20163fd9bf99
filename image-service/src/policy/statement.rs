//! What the envelope of a bundle says: a statement (in-toto) that somebody signs this image.
//!
//! Only the type of predicate that cosign signs images with is such a statement. Others, by the same key, tell how an
//! image was built or what is wrong with it.

use serde::Deserialize;

use super::{file::Unique, identity::SignedIdentity};
use crate::{digest::Digest, reference::Reference};

/// `cosign sign` writes the first, `cosign attest` the second.
const TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// That it is signed, and nothing else.
pub(super) const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// Readers pass over what they don't know, says the format.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: Option<String>,
    digest: Unique<String>,
}

/// Holds what was signed (and is known to be) against what it is to be for.
pub(crate) fn check(
    payload: &[u8],
    digest: &Digest,
    image: &Reference,
    identity: &SignedIdentity,
) -> Result<(), String> {
    let statement: Statement =
        serde_json::from_slice(payload).map_err(|error| format!("what is signed is no statement: {error}"))?;
    let shown = |text: &str| text.chars().filter(|letter| !letter.is_control()).take(200).collect::<String>();
    if !TYPES.contains(&statement.kind.as_str()) {
        return Err(format!("it is of the type {:?}, not {:?}", shown(&statement.kind), TYPES[0]));
    }
    if statement.predicate_type != SIGNED {
        let kind = shown(&statement.predicate_type);
        return Err(format!("it says something else than that the image is signed ({kind:?})"));
    }
    let [subject] = statement.subject.as_slice() else {
        return Err(format!("it is for {} things, not for one image", statement.subject.len()));
    };
    let [(algorithm, hex)] = subject.digest.entries() else {
        return Err(format!("it gives {} digests, not one", subject.digest.entries().len()));
    };
    let signed = format!("{algorithm}:{hex}");
    if signed != digest.to_string() {
        return Err(format!("it is for {}, not for {digest}", shown(&signed)));
    }
    match subject.name.as_deref().filter(|name| !name.is_empty()) {
        _ if identity.accepts_any() => Ok(()),
        Some(name) if identity.accepts(image, name) => Ok(()),
        Some(name) => Err(format!("it was made for the identity {:?}, which does not count for {image}", shown(name))),
        None => Err("it names no image, and only the signedIdentity matchDigest lets those count that don't".into()),
    }
}

#[cfg(test)]
mod tests;

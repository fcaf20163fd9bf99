//! What a signature says: the payload of "simple signing", which cosign has taken over.

use serde::{Deserialize, de::IgnoredAny};

use super::identity::SignedIdentity;
use crate::{digest::Digest, reference::Reference};

/// What cosign writes as type.
pub(super) const COSIGN: &str = "cosign container image signature";
/// What simple signing has there.
pub(super) const SIMPLE: &str = "atomic container signature";

/// Only in `optional` may there be what we do not know.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Digest,
}

/// Holds what was signed (and is known to be) against what it is to be for.
pub(super) fn check(
    payload: &[u8],
    kind: &str,
    digest: &Digest,
    image: &Reference,
    identity: &SignedIdentity,
) -> Result<(), String> {
    let Payload { critical, .. } =
        serde_json::from_slice(payload).map_err(|error| format!("what is signed is no claim: {error}"))?;
    let shown = |text: &str| text.chars().filter(|letter| !letter.is_control()).take(200).collect::<String>();
    if critical.kind != kind {
        return Err(format!("it is of the type {:?}, not {kind:?}", shown(&critical.kind)));
    }
    let signed = critical.image.docker_manifest_digest;
    if signed != *digest {
        return Err(format!("it is for {signed}, not for {digest}"));
    }
    let name = critical.identity.docker_reference;
    if !identity.accepts(image, &name) {
        return Err(format!("it was made for the identity {:?}, which does not count for {image}", shown(&name)));
    }
    Ok(())
}

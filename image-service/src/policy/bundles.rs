//! Bundles of an image: artifacts in the registry that refer to it, each with one bundle as its only blob.

use serde::Deserialize;
use tripod_engine::Result;

use super::{
    MAX_BYTES, MAX_SIGNATURES, Reasons, Subject,
    bundle::{self, Envelope},
    file::Signed,
    key::{self, PublicKey},
    statement,
};
use crate::{
    digest::Digest,
    manifest::Descriptor,
    registry::{Listed, Wanted},
};

/// Says in a list what a bundle is about, so that others need not be fetched.
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
/// What lists say of artifacts that were pushed by clients of an older kind.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What may hold a signature.
pub(super) const WANTED: Wanted = Wanted { artifact_type: bundle::MEDIA_TYPE, is: is_wanted, max: MAX_SIGNATURES };

/// What is read of an artifact's manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

fn is_wanted(entry: &Listed) -> bool {
    let about = entry.annotations.get(PREDICATE);
    [bundle::MEDIA_TYPE, EMPTY, ""].contains(&entry.artifact_type.as_str())
        && about.is_none_or(|about| about == statement::SIGNED)
}

/// Whether one of the bundles that refer to a digest counts; the others leave their reasons.
pub(super) async fn count(
    digest: &Digest,
    keys: &[PublicKey],
    required: &Signed,
    subject: Subject<'_>,
    reasons: &mut Reasons,
) -> Result<bool> {
    for listed in subject.session.referrers(digest, WANTED).await? {
        let counts = match blob(&listed, subject).await? {
            Ok(Some(blob)) => {
                let bundle = subject.session.signature(&blob, MAX_BYTES).await?;
                one(&bundle, digest, keys, required, subject)
            }
            Ok(None) => continue,
            Err(why) => Err(why),
        };
        match counts {
            Ok(()) => return Ok(true),
            Err(why) => reasons.push(&why),
        }
    }
    Ok(false)
}

/// The blob of an artifact that has a bundle in it; nothing, if it is an artifact of another kind.
async fn blob(listed: &Listed, subject: Subject<'_>) -> Result<std::result::Result<Option<Descriptor>, String>> {
    if listed.size > MAX_BYTES {
        return Ok(Err(format!("{} is larger than {MAX_BYTES} bytes", listed.digest)));
    }
    let Some(manifest) = subject.session.referrer(&listed.digest).await? else {
        return Ok(Err(format!("{} is listed, and not there", listed.digest)));
    };
    Ok(read(&manifest).map_err(|why| format!("{} {why}", listed.digest)))
}

pub(super) fn read(manifest: &[u8]) -> std::result::Result<Option<Descriptor>, String> {
    let artifact: Artifact = serde_json::from_slice(manifest).map_err(|error| format!("is not valid: {error}"))?;
    if artifact.artifact_type.as_deref() != Some(bundle::MEDIA_TYPE) {
        return Ok(None);
    }
    let Ok([blob]) = <[Descriptor; 1]>::try_from(artifact.layers.unwrap_or_default()) else {
        return Err("has not one blob, as those with a bundle have".into());
    };
    if blob.media_type.as_deref() != Some(bundle::MEDIA_TYPE) {
        return Err(format!("has a blob that is not of the type {}", bundle::MEDIA_TYPE));
    }
    match blob.size > MAX_BYTES {
        true => Err(format!("has a bundle that is larger than {MAX_BYTES} bytes")),
        false => Ok(Some(blob)),
    }
}

fn one(
    bundle: &[u8],
    digest: &Digest,
    keys: &[PublicKey],
    required: &Signed,
    subject: Subject<'_>,
) -> std::result::Result<(), String> {
    let envelope = Envelope::parse(bundle)?;
    let statement = envelope.open(keys).ok_or_else(|| key::unverified(keys))?;
    statement::check(statement, digest, subject.reference, &required.identity)
}

#[cfg(test)]
mod tests;

//! Signatures of cosign by a key. Until its version 3, it made a manifest with the tag `sha256-HEX.sig` beside the image, a
//! layer for each signature; since then it makes bundles that refer to the image.

use std::collections::BTreeMap;

use serde::Deserialize;
use tripod_engine::Result;

use super::{
    MAX_BYTES, MAX_SIGNATURES, Reasons, Subject, bundles, claim,
    file::Signed,
    key::{self, PublicKey},
};
use crate::{digest::Digest, manifest::Descriptor};

const KIND: &str = "sigstoreSigned";
const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// What is read of the manifest.
#[derive(Deserialize)]
struct Attached {
    #[serde(default)]
    layers: Option<Vec<Layer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Refuses an image of whose digests none has a signature that counts.
pub(super) async fn check(scope: &str, required: &Signed, subject: Subject<'_>) -> Result<()> {
    let keys = keys(required)?;
    let mut reasons = Reasons::default();
    for digest in subject.digests() {
        let Some(manifest) = subject.session.attached(&tag(digest)).await? else { continue };
        let layers = match serde_json::from_slice::<Attached>(&manifest) {
            Ok(attached) => attached.layers.unwrap_or_default(),
            Err(error) => {
                reasons.push(&format!("the manifest {} is not valid: {error}", tag(digest)));
                continue;
            }
        };
        let signatures = layers.into_iter().filter(|layer| layer.media_type == MEDIA_TYPE);
        for layer in signatures.take(MAX_SIGNATURES) {
            match one(&layer, digest, &keys, required, subject).await? {
                Ok(()) => return Ok(()),
                Err(why) => reasons.push(&why),
            }
        }
    }
    // Second, as they take more requests, and some registries know no such lists.
    for digest in subject.digests() {
        if bundles::count(digest, &keys, required, subject, &mut reasons).await? {
            return Ok(());
        }
    }
    Err(reasons.refusal(scope, KIND, &subject).into())
}

fn keys(required: &Signed) -> Result<Vec<PublicKey>> {
    Ok(required.keys.iter().map(PublicKey::load).collect::<std::result::Result<_, _>>()?)
}

fn tag(digest: &Digest) -> String {
    format!("{}.sig", digest.to_string().replace(':', "-"))
}

/// Whether a signature counts, and why not.
async fn one(
    layer: &Layer,
    digest: &Digest,
    keys: &[PublicKey],
    required: &Signed,
    subject: Subject<'_>,
) -> Result<std::result::Result<(), String>> {
    let signature = layer.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
    let Some(signature) = signature.and_then(|text| key::base64(text)) else {
        return Ok(Err(format!("one has no signature in the annotation {ANNOTATION}")));
    };
    if layer.size > MAX_BYTES {
        return Ok(Err(format!("one is larger than {MAX_BYTES} bytes")));
    }
    let (media_type, size) = (Some(layer.media_type.clone()), layer.size);
    let blob = Descriptor { media_type, digest: layer.digest.clone(), size, platform: None, annotations: None };
    let payload = subject.session.signature(&blob, MAX_BYTES).await?;
    if !keys.iter().any(|key| key.verifies(&payload, &signature)) {
        return Ok(Err(key::unverified(keys)));
    }
    Ok(claim::check(&payload, claim::COSIGN, digest, subject.reference, &required.identity))
}

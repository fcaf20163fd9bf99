//! "Simple signing": signatures of OpenPGP that lie beside the registry, as `URL/REPOSITORY@sha256=HEX/signature-N`.

use std::path::PathBuf;

use tripod_engine::{Error, Result};

use super::{
    MAX_BYTES, MAX_SIGNATURES, PolicyError, Reasons, Refusal, Subject, claim,
    file::{Signed, closest},
    gpgv::Keyrings,
    key,
};
use crate::{digest::Digest, fetch::blocking, registry::Session, service::Inner};

const KIND: &str = "signedBy";
/// The entry of `image.lookaside` for registries that have none.
const DEFAULT: &str = "default";

/// Where signatures lie.
enum Place {
    Folder(PathBuf),
    Server(Box<Session>),
}

/// Refuses an image of whose digests none has a signature that counts.
pub(super) async fn check(inner: &Inner, scope: &str, required: &Signed, subject: Subject<'_>) -> Result<()> {
    let lookaside = &inner.config.lookaside;
    let base = closest(subject.reference, |scope| lookaside.get(scope)).map(|(_, base)| base);
    let Some(base) = base.or_else(|| lookaside.get(DEFAULT)) else {
        let why = format!("image.lookaside does not say where those of {} lie", subject.reference.registry());
        return Err(Refusal::Unaccepted { scope: scope.to_owned(), kind: KIND, why }.into());
    };
    let place = match base.strip_prefix("file://") {
        Some(folder) => Place::Folder(folder.into()),
        None => Place::Server(Box::new(inner.registries.lookaside(subject.reference, base)?)),
    };
    let keyrings = Keyrings::new(&inner.fetcher.layout, required)?;
    let mut reasons = Reasons::default();
    for digest in subject.digests() {
        for number in 1..=MAX_SIGNATURES {
            let Some(signature) = place.get(subject, digest, number).await? else { break };
            let claimed = match keyrings.open(signature).await? {
                Ok(text) => claim::check(&text, claim::SIMPLE, digest, subject.reference, &required.identity),
                Err(why) => Err(why),
            };
            match claimed {
                Ok(()) => return Ok(()),
                Err(why) => reasons.push(&why),
            }
        }
    }
    Err(reasons.refusal(scope, KIND, &subject).into())
}

impl Place {
    /// A signature, if there are that many.
    async fn get(&self, subject: Subject<'_>, digest: &Digest, number: usize) -> Result<Option<Vec<u8>>> {
        let below = format!("@{}/signature-{number}", digest.to_string().replace(':', "="));
        match self {
            Self::Server(session) => Ok(session.beside(&below, MAX_BYTES).await?),
            Self::Folder(folder) => {
                let path = folder.join(format!("{}{below}", subject.reference.repository()));
                match blocking(move || key::read(&path, MAX_BYTES)).await? {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(PolicyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::from(error)),
                }
            }
        }
    }
}

//! Which images may be used on this node: the operator's policy, in the format of containers-policy.json(5), and programs
//! that are asked besides.
//!
//! The file is read anew at each pull. An image is judged by the digests that lead to it: what the name resolves to, each
//! index below that, and the manifest for this host. A signature of any of these says what the image is. All requirements
//! of the scope that fits best must be met, before a layer is fetched.

mod bundle;
mod bundles;
mod claim;
mod file;
mod gpgv;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod identity;
mod key;
mod lookaside;
mod sigstore;
mod statement;
mod verifiers;

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;
use tripod_engine::{Error, Kind, Result};

use self::file::{Policy, Requirement};
use crate::{
    digest::Digest, fetch::blocking, manifest::Descriptor, reference::Reference, registry::Session, service::Inner,
};

/// What kubelet knows a refused image by, at the beginning of a message.
pub(crate) const SIGNATURE_VALIDATION_FAILED: &str = "SignatureValidationFailed";
/// For all signatures of one image.
const LIMIT: Duration = Duration::from_secs(120);
/// Signatures of one digest that are looked at.
const MAX_SIGNATURES: usize = 64;
/// Bytes of a signature.
const MAX_BYTES: u64 = 1 << 20;
/// Reasons that a message tells.
const MAX_REASONS: usize = 4;
/// Letters of a reason: parsers repeat what they cannot read.
const MAX_REASON: usize = 500;

/// Why the policy cannot be applied.
#[derive(Debug, Error)]
pub(crate) enum PolicyError {
    #[error("cannot read {}, which the policy needs", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not valid: {why}", path.display())]
    Invalid { path: PathBuf, why: String },
    #[error("{0}: {1}")]
    Key(String, String),
    #[error("{what}")]
    Program { what: String, source: io::Error },
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        Self::with(Kind::FailedPrecondition, "cannot apply the policy for images", error)
    }
}

/// Why an image may not be used.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("the policy rejects it ({0})")]
    Rejected(String),
    #[error("the policy ({scope}) requires a signature ({kind}), and there is none for {digests}")]
    Unsigned { scope: String, kind: &'static str, digests: String },
    #[error("the policy ({scope}) requires a signature ({kind}), and none that there is counts: {why}")]
    Unaccepted { scope: String, kind: &'static str, why: String },
    #[error("the verifier {program} refuses it ({status}): {why}")]
    Verifier { program: String, status: String, why: String },
    #[error("the policy ({scope}) requires a signature, and archives have none: pull the image from a registry")]
    Archive { scope: String },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::with(Kind::PermissionDenied, "it may not be used on this node", refusal)
    }
}

/// Whether an error says that the policy refuses an image.
pub(crate) fn is_refusal(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Refusal>)
}

/// An image on its way in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub session: &'a Session,
    pub reference: &'a Reference,
    /// From what the name resolves to, to the manifest.
    pub chain: &'a [Descriptor],
}

impl Subject<'_> {
    fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.chain.iter().map(|descriptor| &descriptor.digest)
    }
}

/// The signatures of one kind that were looked at in vain.
#[derive(Debug, Default)]
struct Reasons(Vec<String>);

impl Reasons {
    fn push(&mut self, why: &str) {
        self.0.push(why.chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect());
    }

    fn refusal(self, scope: &str, kind: &'static str, subject: &Subject<'_>) -> Refusal {
        let scope = scope.to_owned();
        if self.0.is_empty() {
            let digests = subject.digests().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Refusal::Unsigned { scope, kind, digests };
        }
        let more = self.0.len().saturating_sub(MAX_REASONS);
        let mut why = self.0.into_iter().take(MAX_REASONS).collect::<Vec<_>>().join("; ");
        if more > 0 {
            why += &format!("; and {more} more");
        }
        Refusal::Unaccepted { scope, kind, why }
    }
}

/// Reads the policy, if there is one.
async fn policy(inner: &Inner) -> Result<Option<Policy>> {
    let Some(path) = inner.config.policy_file.clone() else { return Ok(None) };
    Ok(Some(blocking(move || file::read(&path)).await??))
}

/// Says in the log what is wrong with the policy, where something is: pulls fail until it is mended.
pub(crate) fn look(path: &std::path::Path) {
    if let Err(error) = file::read(path) {
        tracing::error!(error = %Error::from(error), "no image can be pulled until this is mended");
    }
}

/// Refuses a name that is rejected whatever its signatures, before a registry is asked.
pub(crate) async fn admit(inner: &Inner, reference: &Reference) -> Result<()> {
    let Some(policy) = policy(inner).await? else { return Ok(()) };
    let (scope, requirements) = policy.registry(reference);
    match requirements.iter().any(|requirement| matches!(requirement, Requirement::Reject)) {
        true => Err(Refusal::Rejected(scope).into()),
        false => Ok(()),
    }
}

/// Holds an image of a registry against the policy, and asks the verifiers.
pub(crate) async fn check(inner: &Inner, subject: Subject<'_>) -> Result<()> {
    if let Some(policy) = policy(inner).await? {
        let (scope, requirements) = policy.registry(subject.reference);
        let signatures = async {
            for requirement in requirements {
                match requirement {
                    Requirement::Accept => {}
                    Requirement::Reject => return Err(Refusal::Rejected(scope.clone()).into()),
                    Requirement::Sigstore(required) => sigstore::check(&scope, required, subject).await?,
                    Requirement::SignedBy(required) => lookaside::check(inner, &scope, required, subject).await?,
                }
            }
            Ok(())
        };
        tokio::time::timeout(LIMIT, signatures).await.unwrap_or_else(|_| {
            let message = format!("the signatures could not be had within {} s", LIMIT.as_secs());
            Err(Error::new(Kind::Unavailable, message))
        })?;
    }
    match &inner.config.verifiers.bin_dir {
        Some(_) => verifiers::check(&inner.config.verifiers, subject).await,
        None => Ok(()),
    }
}

/// Holds an archive against the policy: `transport` is `oci-archive` or `docker-archive`.
pub(crate) async fn check_archive(inner: &Inner, transport: &str) -> Result<()> {
    let Some(policy) = policy(inner).await? else { return Ok(()) };
    let (scope, requirements) = policy.transport(transport);
    for requirement in requirements {
        match requirement {
            Requirement::Accept => {}
            Requirement::Reject => return Err(Refusal::Rejected(scope).into()),
            Requirement::Sigstore(_) | Requirement::SignedBy(_) => return Err(Refusal::Archive { scope }.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

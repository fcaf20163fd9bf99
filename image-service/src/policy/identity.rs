//! For which name a signature was made, and for which names it counts.

use serde::Deserialize;

use crate::reference::Reference;

/// Which identity a signature must have been made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum SignedIdentity {
    /// The name with its tag; for a pull by digest the repository alone.
    #[default]
    #[serde(skip)]
    Default,
    MatchRepoDigestOrExact(Nothing),
    MatchExact(Nothing),
    MatchRepository(Nothing),
    ExactReference(ExactReference),
    ExactRepository(ExactRepository),
    RemapIdentity(RemapIdentity),
    /// The digest is enough. Not one of the format's: its types all compare names, and cosign's bundles have none.
    MatchDigest(Nothing),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ExactReference {
    docker_reference: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ExactRepository {
    docker_repository: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RemapIdentity {
    prefix: String,
    signed_prefix: String,
}

/// A name, and whether it says more than a repository.
struct Name {
    reference: Reference,
    exact: bool,
}

impl Name {
    fn parse(text: &str) -> Result<Self, String> {
        let reference: Reference = text.parse().map_err(|error: crate::InvalidReference| error.to_string())?;
        let last = text.rsplit_once('/').map_or(text, |(_, last)| last);
        Ok(Self { reference, exact: last.contains([':', '@']) })
    }

    fn is(&self, other: &Reference) -> bool {
        self.exact && self.reference.to_string() == other.to_string()
    }
}

impl SignedIdentity {
    /// Whether it can be met at all.
    pub(crate) fn validate(&self) -> Result<(), String> {
        match self {
            Self::ExactReference(exact) => match Name::parse(&exact.docker_reference)?.exact {
                true => Ok(()),
                false => Err(format!("dockerReference {:?} has neither a tag nor a digest", exact.docker_reference)),
            },
            Self::ExactRepository(exact) => match Name::parse(&exact.docker_repository)?.exact {
                false => Ok(()),
                true => Err(format!("dockerRepository {:?} has a tag or a digest", exact.docker_repository)),
            },
            Self::RemapIdentity(remap) => {
                let bad = |prefix: &str| prefix.is_empty() || prefix.ends_with('/') || prefix.contains('@');
                match [&remap.prefix, &remap.signed_prefix].into_iter().find(|prefix| bad(prefix)) {
                    Some(prefix) => Err(format!("{prefix:?} is neither a registry nor the beginning of a name")),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether a signature of the image's digest counts whatever name it was made for, if for any.
    pub(crate) fn accepts_any(&self) -> bool {
        matches!(self, Self::MatchDigest(_))
    }

    /// Whether a signature that was made for `signed` counts for an image.
    pub(crate) fn accepts(&self, image: &Reference, signed: &str) -> bool {
        let Ok(signed) = Name::parse(signed) else { return self.accepts_any() };
        let repository = |name: &str| signed.reference.name() == name;
        match self {
            Self::Default | Self::MatchRepoDigestOrExact(_) => exact_or_digest(image, &signed),
            Self::MatchExact(_) => signed.is(image),
            Self::MatchDigest(_) => true,
            Self::MatchRepository(_) => repository(&image.name()),
            Self::ExactReference(exact) => {
                Name::parse(&exact.docker_reference).is_ok_and(|name| name.exact && signed.is(&name.reference))
            }
            Self::ExactRepository(exact) => {
                Name::parse(&exact.docker_repository).is_ok_and(|name| repository(&name.reference.name()))
            }
            Self::RemapIdentity(remap) => match remapped(remap, image) {
                Some(image) => exact_or_digest(&image, &signed),
                None => false,
            },
        }
    }
}

/// An image that is pulled by its digest has that digest in its signature, however it was called when it was signed.
fn exact_or_digest(image: &Reference, signed: &Name) -> bool {
    match image.digest() {
        Some(_) => signed.exact && signed.reference.name() == image.name(),
        None => signed.is(image),
    }
}

/// The name under which an image was signed, where that is another than the one here.
fn remapped(remap: &RemapIdentity, image: &Reference) -> Option<Reference> {
    let name = image.to_string();
    let Some(rest) = name.strip_prefix(&remap.prefix) else { return Some(image.clone()) };
    // What follows a registry is a path: after a colon comes the port of another one.
    let ends = if remap.prefix.contains('/') { ['/', ':', '@'].as_slice() } else { ['/'].as_slice() };
    match rest.chars().next() {
        Some(next) if ends.contains(&next) => format!("{}{rest}", remap.signed_prefix).parse().ok(),
        _ => Some(image.clone()),
    }
}

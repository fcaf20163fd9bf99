//! What images run on, and which image of an index runs here best.
//!
//! A processor runs images for older members of its family, and some run those of another family too: x86-64 those of
//! x86, 64-bit ARM those of 32-bit ARM. Versions and features of operating systems are for Windows, and mean nothing here.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::manifest::{Descriptor, ManifestError};

/// Another family's images are taken only where there is none of our own.
const FOREIGN: u32 = 1000;

/// What an image of an index runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of this host.
    pub(crate) fn host() -> &'static Self {
        static HOST: OnceLock<Platform> = OnceLock::new();
        HOST.get_or_init(|| {
            let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
            let architecture = match std::env::consts::ARCH {
                "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
                other => other,
            };
            Self { os: "linux".into(), architecture: architecture.into(), variant: variant(architecture, &machine) }
                .normal()
        })
    }

    /// In the names that the field has agreed on. What has no variant gets the one that is meant.
    fn normal(&self) -> Self {
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let variant = variant.strip_prefix('v').unwrap_or(&variant);
        let (architecture, default) = match self.architecture.to_ascii_lowercase().as_str() {
            "amd64" | "x86_64" | "x86-64" => ("amd64".to_owned(), "1"),
            "386" | "i386" | "i486" | "i586" | "i686" | "x86" => ("386".to_owned(), ""),
            "arm64" | "aarch64" => ("arm64".to_owned(), "8"),
            "arm" | "armhf" => ("arm".to_owned(), "7"),
            "armel" => ("arm".to_owned(), "6"),
            "loong64" | "loongarch64" => ("loong64".to_owned(), ""),
            other => (other.to_owned(), ""),
        };
        let variant = if variant.is_empty() { default } else { variant };
        let variant = (!variant.is_empty()).then(|| format!("v{variant}"));
        Self { os: self.os.to_ascii_lowercase(), architecture, variant }
    }

    /// Whether an image is for this platform and no other.
    pub(crate) fn is_met_by(&self, image: &Self) -> bool {
        self.fit(image).is_some_and(|fit| fit < FOREIGN)
    }

    /// How well an image fits, less is better; `None` if it does not run here.
    fn fit(&self, image: &Self) -> Option<u32> {
        let (here, image) = (self.normal(), image.normal());
        if image.os != here.os {
            return None;
        }
        match (here.architecture.as_str(), image.architecture.as_str()) {
            (here_is, image_is) if here_is == image_is => match (level(&here), level(&image)) {
                (Some(here), Some(image)) => (image <= here).then(|| here - image),
                // Variants that are no numbers fit those that are the same.
                _ => (here.variant == image.variant).then_some(0),
            },
            ("amd64", "386") => Some(FOREIGN),
            // The eighth version of ARM runs what its predecessors ran, in its 32-bit state.
            ("arm64", "arm") => {
                let image = level(&image)?;
                (image <= 80).then(|| FOREIGN + 80 - image)
            }
            _ => None,
        }
    }
}

/// A variant as a number: tenths of a version.
fn level(platform: &Platform) -> Option<u32> {
    let Some(variant) = &platform.variant else { return Some(0) };
    let (major, minor) = match variant.strip_prefix('v')?.split_once('.') {
        Some((major, minor)) => (major, minor.parse::<u32>().ok()?),
        None => (variant.strip_prefix('v')?, 0),
    };
    (minor < 10).then_some(())?;
    major.parse::<u32>().ok()?.checked_mul(10)?.checked_add(minor)
}

/// Which member of its family a processor is: by what it can on x86, by what the kernel calls it on ARM.
fn variant(architecture: &str, machine: &str) -> Option<String> {
    let number = match architecture {
        "x86_64" => x86_level(),
        "aarch64" => 8,
        // `armv6l`, `armv7l`, and `armv8l` or `aarch64` for a 32-bit program on a 64-bit kernel.
        "arm" if machine.starts_with("aarch64") => 8,
        "arm" => machine.strip_prefix("armv").and_then(|rest| rest.chars().next()?.to_digit(10)).unwrap_or(7),
        _ => return None,
    };
    Some(format!("v{number}"))
}

/// The level of x86-64 by its psABI: 1 is what all have, 4 has the common part of AVX-512.
#[cfg(target_arch = "x86_64")]
fn x86_level() -> u32 {
    macro_rules! all {
        ($($feature:tt),*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    if !all!("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b") {
        1
    } else if !all!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe") {
        2
    } else if !all!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl") {
        3
    } else {
        4
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn x86_level() -> u32 {
    1
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => {
                return Err(format!(
                    "{text:?} is no platform: expected OS/ARCHITECTURE, as linux/arm64, or a variant behind"
                ));
            }
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("{text:?} is no platform: a part of it is empty"));
        }
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// The entries of an index that run here, at least one, the best first and equally good ones in their order. After them come indexes
/// that do not say what they are for: what is wanted may be in one of them. An image that does not say so is taken if it
/// is the only one.
pub(crate) fn choose<'a>(manifests: &'a [Descriptor], host: &Platform) -> Result<Vec<&'a Descriptor>, ManifestError> {
    let attestation = |descriptor: &Descriptor| {
        let annotations = descriptor.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key("vnd.docker.reference.type"))
    };
    let images: Vec<&Descriptor> = manifests.iter().filter(|descriptor| !attestation(descriptor)).collect();
    let fit = |descriptor: &Descriptor| match &descriptor.platform {
        Some(platform) if !platform.architecture.is_empty() => host.fit(platform),
        _ => (images.len() == 1 || is_index(descriptor)).then_some(u32::MAX),
    };
    let mut fitting: Vec<(u32, &Descriptor)> =
        images.iter().filter_map(|descriptor| Some((fit(descriptor)?, *descriptor))).collect();
    fitting.sort_by_key(|(fit, _)| *fit);
    if !fitting.is_empty() {
        return Ok(fitting.into_iter().map(|(_, descriptor)| descriptor).collect());
    }
    let mut offered: Vec<String> =
        images.iter().map(|image| image.platform.as_ref().map_or("?".to_owned(), ToString::to_string)).collect();
    offered.dedup();
    offered.truncate(12);
    let offered = if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") };
    Err(ManifestError::Platform { wanted: host.to_string(), offered })
}

fn is_index(descriptor: &Descriptor) -> bool {
    let index =
        ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
    descriptor.media_type.as_deref().is_some_and(|media_type| index.contains(&media_type))
}

#[cfg(test)]
mod tests;

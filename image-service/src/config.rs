//! What an operator can set.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{provisioner::ProvisionerKind, registry::proxies::Proxies};

/// Settings of the image service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder of everything that must survive a reboot; the node's to say, not this section's.
    #[serde(skip)]
    pub root: PathBuf,
    /// Folder with one folder per registry, each with a `hosts.toml` in containerd's format.
    pub certs_dir: PathBuf,
    /// How root filesystems are made from images.
    pub provisioner: ProvisionerKind,
    /// Layers that are downloaded and unpacked at the same time, whatever images they belong to.
    pub parallel_layers: usize,
    /// Large layers of gzip are inflated by the program `igzip`, where it is installed.
    pub igzip: bool,
    /// Files that layers have in common are stored once.
    pub deduplicate: bool,
    /// Project quotas count writable layers and hold them to their limits, where the filesystem has them in force.
    pub project_quotas: bool,
    /// Seconds for which the layers of a failed pull are kept, so that the next try fetches the others only. A full disk
    /// ends that at once.
    pub keep_partial_seconds: u64,
    /// Bytes of the filesystem that pulls leave free, or a twentieth of it where that is less; 0 is no limit. With less
    /// than twice as much free, all that nothing refers to is deleted at once.
    pub min_free_bytes: u64,
    /// Images that kubelet's garbage collection leaves alone: references, or beginnings of references before a `*`.
    pub pinned: Vec<String>,
    /// Which images may be used: a file in the format of containers-policy.json(5). Without one, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<PathBuf>,
    /// URLs (`https://`, `http://`, `file://`) below which signatures by GPG lie, by registry, namespace or repository;
    /// `default` is for all others.
    pub lookaside: BTreeMap<String, String>,
    /// Programs that are asked about each image.
    pub verifiers: Verifiers,
    /// Limits on what registries send.
    pub limits: Limits,
    /// How long to wait for registries.
    pub timeouts: Timeouts,
    /// Big blobs over several connections.
    pub ranges: Ranges,
    /// Proxies on the way to registries; the environment's to say, not a file's.
    #[serde(skip)]
    pub proxies: Proxies,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/tripod".into(),
            certs_dir: "/etc/tripod/certs.d".into(),
            provisioner: ProvisionerKind::default(),
            parallel_layers: std::thread::available_parallelism().map_or(3, |cores| cores.get().max(3)),
            igzip: true,
            deduplicate: true,
            project_quotas: true,
            keep_partial_seconds: 600,
            min_free_bytes: 2 << 30,
            pinned: Vec::new(),
            policy_file: None,
            lookaside: BTreeMap::new(),
            verifiers: Verifiers::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            ranges: Ranges::default(),
            proxies: Proxies::default(),
        }
    }
}

/// Limits on what registries send. Whoever can push an image can send anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a manifest or an index.
    pub manifest_bytes: u64,
    /// Bytes of an image's configuration.
    pub config_bytes: u64,
    /// Layers of an image. Overlayfs takes 500.
    pub layers: usize,
    /// Bytes of an unpacked layer.
    pub layer_bytes: u64,
    /// Files, folders and links of a layer.
    pub layer_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            config_bytes: 8 << 20,
            layers: 500,
            layer_bytes: 256 << 30,
            layer_entries: 10_000_000,
        }
    }
}

/// Programs that are asked whether an image may be used, as containerd has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verifiers {
    /// Folder in which each file is such a program. Without one, nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bin_dir: Option<PathBuf>,
    /// Programs that the folder may have; with more, no image is let in.
    pub max_verifiers: usize,
    /// Seconds that one program may take.
    pub per_verifier_timeout_seconds: u64,
}

impl Default for Verifiers {
    fn default() -> Self {
        Self { bin_dir: None, max_verifiers: 10, per_verifier_timeout_seconds: 10 }
    }
}

impl Verifiers {
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.per_verifier_timeout_seconds.max(1))
    }
}

/// How long to wait for registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Seconds until a connection stands.
    pub connect_seconds: u64,
    /// Seconds until an answer begins.
    pub response_seconds: u64,
    /// Seconds after which a download that brings less than `minimum_rate` counts as stuck.
    pub stall_seconds: u64,
    /// Bytes per second.
    pub minimum_rate: u64,
    /// Tries of a request, or of a download that makes no progress.
    pub attempts: u32,
    /// Milliseconds before the second try; each further one waits twice as long, up to 10 seconds.
    pub backoff_milliseconds: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_seconds: 10,
            response_seconds: 30,
            stall_seconds: 30,
            minimum_rate: 1024,
            attempts: 5,
            backoff_milliseconds: 300,
        }
    }
}

/// Big blobs over several connections: where one connection brings less than can be unpacked, and the registry sends
/// parts of a blob, pieces of it are fetched side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ranges {
    /// Connections for one blob; 1 is never more than one.
    pub connections: usize,
    /// Bytes of a piece.
    pub piece_bytes: u64,
    /// Bytes of all pieces of all blobs that are on their way at the same time.
    pub memory_bytes: u64,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { connections: 4, piece_bytes: 4 << 20, memory_bytes: 48 << 20 }
    }
}

impl Ranges {
    /// Pieces that may be in memory.
    pub(crate) fn pieces(&self) -> usize {
        usize::try_from(self.memory_bytes / self.piece_bytes.max(1)).unwrap_or(usize::MAX).min(1024)
    }
}

impl Timeouts {
    pub(crate) fn connect(&self) -> Duration {
        Duration::from_secs(self.connect_seconds.max(1))
    }

    pub(crate) fn response(&self) -> Duration {
        Duration::from_secs(self.response_seconds.max(1))
    }

    pub(crate) fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_seconds.max(1))
    }

    /// How long to wait before try number `attempt` (the first is 0), with a random part so that a fleet of nodes does
    /// not come back all at once.
    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        let millis = self.backoff_milliseconds.saturating_mul(1 << attempt.min(10)).min(10_000);
        Duration::from_millis(millis / 2 + rand::random::<u64>() % (millis / 2 + 1))
    }
}

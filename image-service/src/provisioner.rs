//! Which provisioner makes the root filesystems of a node.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tripod_engine::{Error, Kind, Result, plugin::Provisioner};

use crate::service::ImageService;

/// What the settings say of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvisionerKind {
    /// `overlay` where overlayfs can stand on the filesystem of the root folder, else `copy`.
    #[default]
    Auto,
    /// Images are shared by all containers.
    Overlay,
    /// Each container has a copy.
    Copy,
}

/// The provisioner of a node.
#[derive(Debug)]
pub struct Chosen {
    /// It.
    pub provisioner: Arc<dyn Provisioner>,
    /// Why it was not the first choice, if so.
    pub fallback: Option<String>,
    /// Why no pod can have a user namespace with it, if so.
    pub no_user_namespaces: Option<String>,
}

impl ImageService {
    /// The provisioner that the settings ask for, or that can be.
    pub async fn provisioner(&self) -> Result<Chosen> {
        let kind = self.inner.config.provisioner;
        let overlay = self.overlay();
        let refusal =
            match kind {
                ProvisionerKind::Copy => None,
                _ => overlay.check().await.err().map(|error| {
                    format!("overlayfs cannot stand on the filesystem of {}: {error}", self.root().display())
                }),
            };
        match (kind, refusal) {
            (ProvisionerKind::Overlay, Some(why)) => {
                let remedy = "move `root` to ext4, xfs or btrfs, or set image.provisioner to \"copy\" or \"auto\"";
                Err(Error::new(Kind::FailedPrecondition, format!("{why}: {remedy}")))
            }
            (ProvisionerKind::Auto | ProvisionerKind::Overlay, None) => Ok(Chosen {
                no_user_namespaces: overlay.check_user_namespaces().await.err().map(|error| error.to_string()),
                provisioner: Arc::new(overlay),
                fallback: None,
            }),
            (_, fallback) => {
                let copy = self.copy();
                Ok(Chosen {
                    no_user_namespaces: copy.check_user_namespaces().await.err().map(|error| error.to_string()),
                    provisioner: Arc::new(copy),
                    fallback,
                })
            }
        }
    }
}

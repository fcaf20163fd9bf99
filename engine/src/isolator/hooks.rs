//! Hooks of the operator's: programs that the files of a folder add to containers, in the format that podman and CRI-O
//! read (`version` 1.0.0).

mod file;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tripod_shim_protocol::{Hook, LaunchPlan};

use self::file::{Container, File};
use super::{blocking, invalid};
use crate::{
    Error, Result,
    plugin::{ContainerContext, Isolator},
};

/// Writes the hooks of containers.
#[derive(Debug)]
pub struct Hooks {
    folder: PathBuf,
}

impl Hooks {
    /// Reads hooks from `folder`, for each container anew.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

#[async_trait]
impl Isolator for Hooks {
    fn name(&self) -> &'static str {
        "hooks"
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let config = container.config;
        let about = Container {
            annotations: config.annotations.clone(),
            command: plan.process.argv.first().cloned().unwrap_or_default(),
            bind_mounts: config.mounts.iter().any(|mount| mount.image.is_none()),
        };
        let folder = self.folder.clone();
        plan.hooks = blocking::look(move |progress| {
            progress.set(format!("the folder of hooks {}", folder.display()));
            applying(&folder, &about)
        })
        .await?;
        Ok(())
    }
}

/// The hooks for a container, in the order of the names of their files.
fn applying(folder: &Path, container: &Container) -> Result<Vec<Hook>> {
    let failed = |error| Error::io(format!("read the folder of hooks {}", folder.display()), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    let mut hooks = Vec::new();
    for path in files {
        let text = std::fs::read(&path).map_err(|error| Error::io(format!("read {}", path.display()), error))?;
        let wrong = |problem: String| invalid(format!("the hook {}: {problem}", path.display()));
        let file = File::parse(&text).map_err(wrong)?;
        if file.applies(container).map_err(wrong)? {
            hooks.push(file.into_hook());
        }
    }
    Ok(hooks)
}

#[cfg(test)]
mod tests;

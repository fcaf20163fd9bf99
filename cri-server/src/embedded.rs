//! A daemon inside a command's process, for as long as the command takes: what `tripod run` uses where none answers.
//!
//! It is a whole daemon over the configured folders, so images that were pulled once stay; only its socket is its own.

use std::{error::Error, path::Path};

use async_trait::async_trait;
use tripod_cli::{Embed, EmbedOptions, Embedded};

use crate::{
    Daemon,
    config::{Config, Overrides},
};

/// Starts daemons inside this process.
#[derive(Debug, Clone, Copy)]
pub struct InProcess;

#[async_trait]
impl Embed for InProcess {
    async fn start(&self, options: EmbedOptions) -> Result<Box<dyn Embedded>, Box<dyn Error + Send + Sync>> {
        let EmbedOptions { config, root, state } = options;
        let mut config = Config::load(config.as_deref(), Overrides { root, state, ..Overrides::default() })?;
        config.socket = config.state.join(format!("run-{}.sock", std::process::id()));
        config.metrics.address = None;
        Ok(Box::new(Inside(Daemon::start(&config).await?)))
    }
}

struct Inside(Daemon);

#[async_trait]
impl Embedded for Inside {
    fn socket(&self) -> &Path {
        self.0.socket()
    }

    async fn stop(self: Box<Self>) {
        if let Err(error) = self.0.stop().await {
            tracing::warn!(%error, "the daemon of this command did not end well");
        }
    }
}

//! A daemon for the time of one command. The program that holds both sides gives one; this crate only asks.

use std::{error::Error, path::Path};

use async_trait::async_trait;

use crate::args::Local;

/// Can start a daemon inside this process.
#[async_trait]
pub trait Embed: Send + Sync {
    /// Starts one; it answers when this returns.
    async fn start(&self, local: Local) -> Result<Box<dyn Embedded>, Box<dyn Error + Send + Sync>>;

    /// Starts one that knows images only: it opens the store and leaves pods alone.
    async fn store(&self, local: Local) -> Result<Box<dyn Embedded>, Box<dyn Error + Send + Sync>>;
}

/// A daemon inside this process.
#[async_trait]
pub trait Embedded: Send + Sync {
    /// Where it listens.
    fn socket(&self) -> &Path;

    /// Ends it. Containers that run go on; whoever started some has to end them first.
    async fn stop(self: Box<Self>);
}

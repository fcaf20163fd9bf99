//! What the daemon says about itself: the log, a line and a count for each call, and figures for Prometheus.

mod calls;
mod exporter;
mod images;
mod node;
mod sessions;

use std::io::IsTerminal as _;

pub(crate) use calls::{CallMetrics, Calls};
pub(crate) use exporter::Exporter;
pub(crate) use images::ImageFigures;
pub(crate) use node::Node;
pub(crate) use sessions::SessionCounts;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::config::{ConfigError, LogConfig, LogFormat};

/// Sends the log to standard error. To be called once, by a program and not by a library.
pub fn start_log(config: &LogConfig) -> Result<(), ConfigError> {
    let filter = filter(&config.level).map_err(ConfigError::Log)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| ConfigError::Log(error.to_string()))
}

/// What of the log is wanted, or what is wrong with the level.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, String> {
    // A plain level is about tripod; the libraries below it say too much to be read along.
    let directives = match level.parse::<LevelFilter>() {
        Ok(level) => format!("{},tripod={level}", level.min(LevelFilter::WARN)),
        Err(_) => level.to_owned(),
    };
    EnvFilter::builder().parse(&directives).map_err(|error| format!("{level:?}: {error}"))
}

//! The tripod daemon: gRPC services on the engine, configuration, and the composition of all plugins.
//!
//! A request goes from [`tonic`] through `runtime` or `image`, is checked and translated in `convert`, and becomes a
//! call of the engine or of the image service; answers come back the same way. No gRPC type goes further than this
//! crate. `compose` is the one place that knows all plugins.
#![forbid(unsafe_code)]

pub mod args;
mod compose;
pub mod config;
mod convert;
mod daemon;
mod deadline;
mod embedded;
mod image;
mod images;
mod notify;
mod open_files;
mod own;
mod runtime;
mod socket;
mod status_code;
mod telemetry;

pub use daemon::{Daemon, DaemonError};
pub use embedded::InProcess;
pub use socket::SocketError;
pub use telemetry::start_log;

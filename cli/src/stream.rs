//! What runs between this program and a container through the daemon's streaming server.
//!
//! The daemon answers Exec, Attach and PortForward with a URL that is good for one use; from there on the bytes go
//! their own way, past gRPC.

pub(crate) mod dial;
pub(crate) mod keys;
mod pipes;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod status;
mod trust;

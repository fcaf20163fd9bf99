//! The daemon's end of the connection to a pod's shim.

/// A shim that holds a pod.
#[derive(Debug)]
pub struct Shim {}

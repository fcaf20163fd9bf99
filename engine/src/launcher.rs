//! The launchers that come with the engine.

mod bundle;
mod linux;
mod oci;

pub use linux::Linux;
pub use oci::{Oci, OciOptions};

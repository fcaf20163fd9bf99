//! The launchers that come with the engine.

mod linux;

pub use linux::Linux;

//! Messages, clients and servers of the package `tripod.v1`, generated from `proto/tripod/v1`. Daemon and commands are one
//! program, but of two versions while one is being replaced: fields are only added.

pub use generated::*;

#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/tripod.v1.rs"));
}

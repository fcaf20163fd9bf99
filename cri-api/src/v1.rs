//! Messages, enums, clients and servers of the package `runtime.v1`, generated from `proto/runtime/v1`.

mod redact;

pub use generated::*;

// Generated code documents what the contract comments on and no more, and its clients and servers are not Debug
// throughout; no lint is worth forking a generator for.
#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
}

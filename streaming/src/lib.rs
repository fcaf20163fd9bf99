//! Streams between Kubernetes' clients and containers: exec, attach and port-forward.
//!
//! The daemon asks a [`Backend`] for processes and connections and hands out URLs; clients come to those URLs over
//! SPDY/3.1 or WebSocket. What runs where is the backend's business: nothing here knows of pods or engines.
#![forbid(unsafe_code)]

mod backend;
pub mod spdy;

pub use backend::{AttachRequest, Backend, BoxFuture, End, ExecRequest, PortForwardRequest, Process, Refusal, Streams};

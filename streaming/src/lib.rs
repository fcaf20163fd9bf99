//! Streams between Kubernetes' clients and containers: exec, attach and port-forward.
//!
//! The daemon asks a [`Server`] for URLs; clients come to those URLs over SPDY/3.1 or WebSocket, and the server asks a
//! [`Backend`] for processes and connections. What runs where is the backend's business: nothing here knows of pods or
//! engines.
#![forbid(unsafe_code)]

mod backend;
mod chunk;
mod client;
mod command;
mod config;
mod control;
mod fault;
mod figures;
mod forward;
mod idle;
mod output;
mod request;
mod server;
mod session;
mod socket;
pub mod spdy;
mod status;
mod stream;
mod tls;
mod token;
mod upgrade;
mod websocket;

pub use backend::{AttachRequest, Backend, BoxFuture, End, ExecRequest, PortForwardRequest, Process, Refusal, Streams};
pub use config::{Config, Tls};
pub use figures::Sessions;
pub use server::{Error, Server, UrlError};

//! The streaming server with real processes and real connections, and clients of its own.
#![forbid(unsafe_code)]

mod http;
mod limits;
mod requests;
mod spdy_client;
mod spdy_commands;
mod world;

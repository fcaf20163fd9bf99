//! The streaming server with real processes and real connections, and clients of its own.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod forward;
mod http;
mod limits;
mod listener;
mod requests;
mod spdy_client;
mod spdy_commands;
mod tls;
mod world;
mod ws_client;
mod ws_commands;

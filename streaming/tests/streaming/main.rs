//! The streaming server with real processes and real connections, and clients of its own.
#![forbid(unsafe_code)]

mod forward;
mod http;
mod limits;
mod listener;
mod requests;
mod spdy_client;
mod spdy_commands;
mod world;
mod ws_client;
mod ws_commands;

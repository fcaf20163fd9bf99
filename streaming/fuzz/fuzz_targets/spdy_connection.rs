//! Any bytes into a server's connection whose streams are used in every way.
#![no_main]

#[path = "../entry/spdy.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::connection(data));

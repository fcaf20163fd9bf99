//! The decoder of frames over any bytes in any pieces.
#![no_main]

#[path = "../entry/spdy.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::frames(data));

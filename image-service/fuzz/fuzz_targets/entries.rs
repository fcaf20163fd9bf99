//! Archives made of hostile entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tripod_image_service::fuzzing::entries(data));

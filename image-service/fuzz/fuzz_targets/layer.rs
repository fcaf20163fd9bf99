//! Any bytes as a layer's blob.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tripod_image_service::fuzzing::layer(data));

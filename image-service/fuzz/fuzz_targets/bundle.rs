//! Bundles of signatures, and what leads to them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tripod_image_service::fuzzing::bundle(data));

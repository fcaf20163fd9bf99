//! Names of images.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tripod_image_service::fuzzing::reference(data));

//! A log's directory: files removed, renamed, doubled, cut, changed. Named, never a panic, a hang, a
//! silent loss.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| synclog::fuzzing::directory(data));

//! Arbitrary bytes as headers, payloads and small files: decoded or refused, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| synclog::fuzzing::frame(data));

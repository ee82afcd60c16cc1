//! Arbitrary bytes as frames and as payloads: decoded or refused, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| synclog::fuzzing::frame(data));

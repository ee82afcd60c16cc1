//! Stores made of arbitrary bytes: read, verified, opened, appended to; never a panic, a hang, an
//! invented event or a lost one without a word.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| synclog::fuzzing::open(data));

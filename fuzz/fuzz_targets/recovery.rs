//! The end of a log, judged by recovery and by an oracle written from the specification. They must agree.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| synclog::fuzzing::recovery(data));

//! A log's life on the simulated disk: appends, crashes, damage, readers; against a list of what was
//! acknowledged.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| synclog::fuzzing::script(data));

//! A store's life with SQLite: appends and whatever is done to the database; against a list of events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| synclog::fuzzing::store(data));

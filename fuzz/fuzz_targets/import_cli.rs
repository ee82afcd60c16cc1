//! Imports, and the command line: arguments, lines, times, and every byte that is written.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0..=95, rest)) => synclog::fuzzing::import(rest),
    Some((_, rest)) => synclog::fuzzing::command_line(rest),
    None => {}
});

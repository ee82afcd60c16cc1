//! Entry points for fuzzing and for the tests that replay its finds. Not part of the public surface.
//!
//! Each target is a function of bytes and has a file here: [`frame`] pure bytes, [`directory`] a log's
//! files, [`recovery`] a log's end judged by the product and by an oracle written from the
//! specification, [`script`] a log's life on the simulated disk, [`store`] a store's life with SQLite,
//! [`import`] what is read from other systems, [`open`] whole stores. The command line's target is
//! `cli/fuzzing.rs`.
//!
//! A target panics where a promise is broken. Where no fuzzer runs, the tests below feed each one with
//! its committed seeds and with random bytes from a fixed seed.

mod directory;
mod frame;
mod import;
mod open;
mod oracle;
mod recovery;
mod script;
mod store;
#[cfg(test)]
mod tests;

pub use directory::directory;
pub use frame::frame;
pub use import::import;
pub use open::open;
pub use recovery::recovery;
pub use script::script;
pub use store::store;

/// Arguments, lines and times as the command line reads them, and everything that it writes.
#[cfg(all(fuzzing, feature = "cli"))]
pub fn command_line(data: &[u8]) {
    crate::cli::fuzzing::command_line(data);
}

/// A directory that is gone with the value; in memory where that is possible.
pub(crate) fn scratch() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    let made = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    made.unwrap_or_else(|error| panic!("no temporary directory: {error}"))
}

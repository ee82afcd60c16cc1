//! The log.
#![allow(missing_docs)]
#[cfg(test)]
mod crash_tests;
pub(crate) mod cursor;
pub(crate) mod deletion;
pub(crate) mod directory;
pub(crate) mod frame;
pub(crate) mod heal;
pub(crate) mod map;
pub(crate) mod open;
pub(crate) mod quarantine;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod survey;
pub(crate) mod view;
pub(crate) mod writer;

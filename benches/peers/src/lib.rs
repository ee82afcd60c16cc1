//! What other embedded logs make of the same damage, measured with the same records.
//!
//! - [`peer`] has the trait that every log here implements, synclog among them.
//! - [`peers`] has one file for each of them.
//! - [`records`] makes the records.
//! - [`damage`] writes, damages a copy, opens it again in a process of its own, and judges.
#![deny(unsafe_code)]

pub mod damage;
pub mod peer;
pub mod peers;
pub mod records;

//! The damage: what is done to the files, and what the peers make of it.
//!
//! Each peer writes [`RECORDS`](crate::records::RECORDS) records in a process of its own, one append each,
//! and counts its syncs. When the last append is acknowledged, the process is killed (or closes the log,
//! where that is the setup). Then the files are copied, one damage is done to the copy, and another process
//! opens it and reads everything. A crash or a hang there is a result like any other.

mod bench;
pub mod child;
mod copies;
mod files;
mod places;
mod process;
pub mod report;
mod verdict;

pub use bench::{Bench, PeerResult};
pub use verdict::{Cell, Group, How, Outcome};

/// What is done. In the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Nothing, for comparison.
    None,
    /// One bit in the payload of the record in the middle.
    Payload,
    /// One bit in that record's framing: every bit in turn, each in a copy of its own.
    Framing,
    /// A page of 4 KiB of the file becomes zeros: each page in the middle, up to 64 around that record, each
    /// in a copy of its own. What is lost with a page is 14 to 17 records.
    Page,
    /// One bit in the payload of the last record.
    Last,
    /// One sync fails while that record is written, appends go on, and the log is opened again.
    FailedSync,
}

impl Damage {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Payload, Self::Framing, Self::Page, Self::Last, Self::FailedSync];

    /// The head of its column.
    pub fn title(self) -> &'static str {
        match self {
            Self::None => "no damage",
            Self::Payload => "payload bit",
            Self::Framing => "framing bit",
            Self::Page => "zeroed page",
            Self::Last => "last record",
            Self::FailedSync => "failed sync",
        }
    }
}

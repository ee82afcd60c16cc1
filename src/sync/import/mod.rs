//! Import: history that came from somewhere else, taken in once and never twice.
//!
//! Three steps. A source is read into [`Record`]s, and what cannot be one is rejected by line
//! (`lines.rs` for JSON lines, `table.rs` for databases, `fields.rs` for what both share). All
//! records are matched with the events that are there (`matching.rs`, `claims.rs`). What is left is appended.
//! Export is here too, because its lines are what an import reads back (`export.rs`).

use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use serde::Serialize;

use crate::disk;
use crate::error::{Error, Result};
use crate::time::Timestamp;

use super::event::{Origin, SyncEvent};

mod claims;
mod export;
mod fields;
mod lines;
mod matching;
mod table;

pub use export::ExportLine;
pub(crate) use lines::read_lines;
pub use matching::TimeOffset;
pub(crate) use matching::{ImportPlan, Matcher};

/// The longest line, and the longest value in a database, that an import looks at.
pub(crate) const MAX_LINE: usize = 32 << 20;

/// The first bytes of every SQLite database.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// Reads a time without a zone. The command line gives one for its `--source-tz`.
pub(crate) type ReadTime<'a> = &'a dyn Fn(&str) -> Result<Timestamp>;

/// Times without a zone are UTC.
pub(crate) fn utc(text: &str) -> Result<Timestamp> {
    text.parse()
}

/// One event of a source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Its line, or the number of its row, from 1.
    pub(crate) line: u64,
    /// The event, prepared. Its `origin` is there exactly if the record comes from our own export.
    pub(crate) event: SyncEvent,
    /// Its idempotency key, from our own export.
    pub(crate) key: Option<String>,
}

impl Record {
    /// Where the event was first appended: the identity of what our own export wrote.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.event.origin
    }
}

/// A line that is no event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// The line, or the number of the row in a database, from 1.
    pub line: u64,
    /// What is wrong with it.
    #[serde(rename = "rejected")]
    pub reason: String,
}

/// What an import did, or with `dry_run` would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Events appended.
    pub imported: u64,
    /// Records that are there already, repeats within the source included.
    pub already_present: u64,
    /// Lines that are no event.
    pub rejected: u64,
    /// Records that a recorded deletion covers, so that they stay away (P8).
    pub deleted: u64,
    /// Imported records whose id was known with other content or another time.
    pub id_conflicts: u64,
    /// The zone in which times without one were read.
    pub source_tz: String,
    /// True where nothing was written because the caller only wanted to know.
    pub dry_run: bool,
    /// Which lines were rejected, and why.
    #[serde(skip)]
    pub rejections: Vec<Rejection>,
}

/// What was read from a source. It is held in memory as a whole, because the whole source is
/// matched before anything is written: memory grows with the source, not with the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Source {
    /// The events, in the order of the source.
    pub(crate) records: Vec<Record>,
    /// What is no event, in the order of the source.
    pub(crate) rejections: Vec<Rejection>,
}

impl Source {
    /// Keeps a record, or the reason why there is none.
    fn take(&mut self, line: u64, record: Result<Record, String>) {
        match record {
            Ok(record) => self.records.push(record),
            Err(reason) => self.rejections.push(Rejection { line, reason }),
        }
    }
}

/// Reads a file: a SQLite database if its first bytes say so, JSON lines otherwise. A database is
/// only read.
pub(crate) fn read_path(path: &Path, read_time: ReadTime<'_>) -> Result<Source> {
    let mut file = disk::open_source(path).map_err(|error| Error::io("open", path, error))?;
    let mut start = Vec::new();
    let magic_length = SQLITE_MAGIC.len() as u64;
    (&mut file).take(magic_length).read_to_end(&mut start).map_err(|error| Error::io("read", path, error))?;
    if start == SQLITE_MAGIC {
        // SQLite opens the file itself. Ours is closed first: closing it later would drop the
        // locks that this process holds on the same file.
        drop(file);
        return table::read(path, read_time);
    }
    read_lines(BufReader::new(Cursor::new(start).chain(file)), path, read_time)
}

#[cfg(test)]
#[path = "fixture_tests.rs"]
mod tests;

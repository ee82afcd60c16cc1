//! Import: history that came from somewhere else, taken in once and never twice.
//!
//! Three steps. A source is read into [`Record`]s, and what cannot be one is rejected by line
//! (`lines.rs` for JSON lines, `table.rs` for databases, `fields.rs` and `cells.rs` for what both share). All
//! records are matched with the events that are there (`matching.rs`, `same_id.rs`, `claims.rs`). What is left
//! is appended.
//! Export is here too, because its lines are what an import reads back (`export.rs`).

use std::io::{BufReader, Cursor, Read};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::disk;
use crate::error::{Error, Result};
use crate::time::Timestamp;

use super::event::{Origin, SyncEvent};
use fields::Cells;

mod cells;
mod claims;
mod export;
mod fields;
mod lines;
mod matching;
mod same_id;
mod table;

pub use export::ExportLine;
pub(crate) use lines::read_lines;
pub use matching::TimeOffset;
pub(crate) use matching::{ImportPlan, Matcher, Replacement};

/// The longest line, and the longest value in a database, that an import looks at.
pub(crate) const MAX_LINE: usize = 32 << 20;

/// The first bytes of every SQLite database.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// Reads the time of a record. The command line gives one for its `--source-tz`.
pub(crate) type ReadTime<'a> = &'a dyn Fn(&str) -> Result<SourceTime>;

/// The time of a record, and how it was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceTime {
    /// It names its zone.
    Zoned(Timestamp),
    /// It was read in the zone of the source.
    Local(Timestamp),
    /// The same, and the zone's clocks were moved past it: it never was.
    Skipped(Timestamp),
    /// The same, and the zone's clocks showed it twice.
    Twice(Timestamp),
}

impl SourceTime {
    /// The point in time.
    pub fn timestamp(self) -> Timestamp {
        match self {
            Self::Zoned(time) | Self::Local(time) | Self::Skipped(time) | Self::Twice(time) => time,
        }
    }
}

/// Nothing is known but the time: as if it had been read in the zone of the source.
impl From<Timestamp> for SourceTime {
    fn from(time: Timestamp) -> Self {
        Self::Local(time)
    }
}

/// Times without a zone are UTC.
pub(crate) fn utc(text: &str) -> Result<SourceTime> {
    let time = text.parse()?;
    Ok(if Timestamp::names_zone(text) { SourceTime::Zoned(time) } else { SourceTime::Local(time) })
}

/// What becomes of fields and columns that an event has no place for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extra {
    /// They go into the details, a line each: `[extra] name: value`. What is there for that reason does not
    /// count when records are compared with events.
    #[default]
    Details,
    /// They are left out.
    Drop,
}

/// How a source is read.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) read_time: ReadTime<'a>,
    /// How times were read by an import that is to be corrected.
    pub(crate) wrong_time: Option<ReadTime<'a>>,
    pub(crate) extra: Extra,
    /// How long to wait for whoever holds a database.
    pub(crate) wait: Duration,
}

#[cfg(any(test, fuzzing))]
impl<'a> Reading<'a> {
    /// Times are read like this, and everything else is as it is by default.
    pub(crate) fn of(read_time: ReadTime<'a>) -> Self {
        Self { read_time, wrong_time: None, extra: Extra::default(), wait: Duration::ZERO }
    }
}

/// One event of a source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Its line, or the number of its row, from 1.
    pub(crate) line: u64,
    /// Which object of the line it is, from 1; 0 where there is no other.
    pub(crate) object: u64,
    /// The event, prepared. Its `origin` is there exactly if the record comes from our own export.
    pub(crate) event: SyncEvent,
    /// Its idempotency key.
    pub(crate) key: Option<String>,
    /// Its time as [`Reading::wrong_time`] has it.
    pub(crate) wrong_time: Option<Timestamp>,
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
    /// Which object of the line, from 1; 0 where there is no other.
    #[serde(skip_serializing_if = "is_zero")]
    pub object: u64,
    /// What is wrong with it.
    #[serde(rename = "rejected")]
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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
    /// Imported records that equal an event, or an earlier record, in all but the id.
    pub look_alikes: u64,
    /// Events of an earlier import in the wrong zone that were taken back, each after it was there in the right
    /// one ([`SyncLog::correct_zone`](crate::SyncLog::correct_zone)).
    pub corrected: u64,
    /// Records without an alterid, which have `-` in its place.
    pub empty_alterids: u64,
    /// Levels and statuses that are none, and stand in the details.
    pub unknown_words: u64,
    /// Fields or columns with values that an event has no place for; the first 100 of them.
    pub extra_fields: Vec<String>,
    /// Records whose time has not come yet.
    pub in_future: u64,
    /// The newest of these times.
    #[serde(serialize_with = "newest")]
    pub newest_in_future: Option<Timestamp>,
    /// Records whose local time the zone of the source lacks; it was moved on by the gap.
    pub skipped_times: u64,
    /// Records whose local time the zone of the source has twice; the earlier one was taken.
    pub doubled_times: u64,
    /// The zone in which times without one were read.
    pub source_tz: String,
    /// True where nothing was written because the caller only wanted to know.
    pub dry_run: bool,
    /// Which lines were rejected, and why.
    #[serde(skip)]
    pub rejections: Vec<Rejection>,
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn newest<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}

/// What was read from a source. It is held in memory as a whole, because the whole source is
/// matched before anything is written: memory grows with the source, not with the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Source {
    /// The events, in the order of the source.
    pub(crate) records: Vec<Record>,
    /// What is no event, in the order of the source.
    pub(crate) rejections: Vec<Rejection>,
    /// See [`ImportReport`].
    pub(crate) empty_alterids: u64,
    pub(crate) unknown_words: u64,
    pub(crate) extra_fields: Vec<String>,
    pub(crate) skipped_times: u64,
    pub(crate) doubled_times: u64,
}

/// The names of extra fields that are told; a source can have any number.
const EXTRA_FIELDS_TOLD: usize = 100;

impl Source {
    fn reject(&mut self, line: u64, object: u64, reason: String) {
        self.rejections.push(Rejection { line, object, reason });
    }

    /// Keeps the record of these cells, or the reason why there is none.
    fn take(&mut self, (line, object): (u64, u64), cells: Cells, reading: &Reading<'_>, place: &str) {
        let (record, seen) = match cells.into_record(line, object, reading) {
            Ok(made) => made,
            Err(reason) => return self.reject(line, object, format!("{place}{reason}")),
        };
        self.records.push(record);
        self.empty_alterids += u64::from(seen.empty_alterid);
        self.unknown_words += seen.unknown_words;
        self.skipped_times += u64::from(matches!(seen.time, Some(SourceTime::Skipped(_))));
        self.doubled_times += u64::from(matches!(seen.time, Some(SourceTime::Twice(_))));
        for name in seen.extra {
            if self.extra_fields.len() < EXTRA_FIELDS_TOLD && !self.extra_fields.contains(&name) {
                self.extra_fields.push(name);
            }
        }
    }
}

/// Reads a file: a SQLite database if its first bytes say so, JSON lines otherwise. A database is
/// only read. Lines may come through a pipe.
pub(crate) fn read_path(path: &Path, reading: &Reading<'_>) -> Result<Source> {
    let mut file = disk::open_source(path).map_err(|error| Error::io("open", path, error))?;
    let mut start = Vec::new();
    let magic_length = SQLITE_MAGIC.len() as u64;
    (&mut file).take(magic_length).read_to_end(&mut start).map_err(|error| Error::io("read", path, error))?;
    if start == SQLITE_MAGIC {
        // SQLite opens the file itself. Ours is closed first: closing it later would drop the
        // locks that this process holds on the same file.
        drop(file);
        // And what came through a pipe is gone.
        disk::check_regular(path).map_err(|error| Error::io("open the database", path, error))?;
        return table::read(path, reading);
    }
    read_lines(BufReader::new(Cursor::new(start).chain(file)), path, reading)
}

#[cfg(test)]
#[path = "fixture_tests.rs"]
mod tests;

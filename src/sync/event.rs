//! The built-in event type: one line of the history of sync runs.
//!
//! As bytes it is the business of `codec.rs`, as a row that of `row.rs`. Read next: `runs.rs`, which
//! joins events to runs, and `filter.rs`, which picks them.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::event::{Column, ColumnType, Event, Index, Table, Value};
use crate::store_id::StoreId;
use crate::time::Timestamp;

use super::runs::is_ahead;
use super::{codec, row};

/// A company whose data is synced. It is identified by the pair of `guid` and `alterid`; the name
/// is only shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Company {
    /// The first half of its identity.
    #[serde(rename = "company_guid")]
    pub guid: String,
    /// The second half: the same guid with another alterid is another company.
    #[serde(rename = "company_alterid")]
    pub alterid: String,
    /// What people call it.
    #[serde(rename = "company_name")]
    pub name: String,
}

impl Company {
    /// A company from its three texts.
    pub fn new(guid: impl Into<String>, alterid: impl Into<String>, name: impl Into<String>) -> Self {
        Self { guid: guid.into(), alterid: alterid.into(), name: name.into() }
    }
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// `INFO`
    Info,
    /// `WARNING`
    Warning,
    /// `ERROR`
    Error,
    /// `SUCCESS`
    Success,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Success];

    /// The word in the `log_level` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Success => "SUCCESS",
        }
    }

    /// The level of an event whose caller gave only a status, or nothing.
    pub fn default_for(status: Option<Status>) -> Self {
        match status {
            Some(Status::Failed) => Self::Error,
            Some(Status::Completed) => Self::Success,
            Some(Status::Started | Status::InProgress) | None => Self::Info,
        }
    }
}

/// Where a run stands after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// `started`
    Started,
    /// `in_progress`
    InProgress,
    /// `completed`
    Completed,
    /// `failed`
    Failed,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Started, Self::InProgress, Self::Completed, Self::Failed];

    /// The word in the `sync_status` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// Words out and in: exact out, any letter case in.
macro_rules! words {
    ($type:ident, $field:literal, $reason:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                Self::ALL
                    .into_iter()
                    .find(|word| word.as_str().eq_ignore_ascii_case(text))
                    .ok_or_else(|| Error::invalid($field, $reason))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(super) use words;

words!(Level, "log_level", "is not INFO, WARNING, ERROR or SUCCESS");
words!(Status, "sync_status", "is not started, in_progress, completed or failed");

/// Where an imported event was first appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The store.
    pub store: StoreId,
    /// The event's seq there.
    pub seq: u64,
}

/// One event in the history of a company's sync runs.
///
/// ```
/// use synclog::{Company, Level, Status, SyncEvent};
///
/// let company = Company::new("8f0c1d52", "102209.0", "Acme Traders");
/// let event = SyncEvent::new(company, Level::Success, "Sync completed")
///     .with_status(Status::Completed)
///     .with_records(300)
///     .with_duration(0.75);
/// assert_eq!(event.status, Some(Status::Completed));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SyncEvent {
    /// The company whose data was synced.
    pub company: Company,
    /// How much it matters.
    pub level: Level,
    /// What happened, in a line.
    pub message: String,
    /// More about it.
    pub details: Option<String>,
    /// Where the run stands.
    pub status: Option<Status>,
    /// How many records were synced so far.
    pub records_synced: Option<i64>,
    /// A code for what went wrong.
    pub error_code: Option<String>,
    /// What went wrong, in words.
    pub error_message: Option<String>,
    /// How long it took, in seconds.
    pub duration_seconds: Option<f64>,
    /// When it happened; `None` becomes the moment of the append.
    pub created_at: Option<Timestamp>,
    /// The run that it belongs to.
    pub run: Option<String>,
    /// Its id in the system that it was imported from.
    pub legacy_id: Option<i64>,
    /// Where it was first appended, if it came from the export of a store.
    pub origin: Option<Origin>,
}

impl SyncEvent {
    /// An event with nothing but the required fields. `records_synced` starts at 0, as the table
    /// always had it.
    pub fn new(company: Company, level: Level, message: impl Into<String>) -> Self {
        Self {
            company,
            level,
            message: message.into(),
            details: None,
            status: None,
            records_synced: Some(0),
            error_code: None,
            error_message: None,
            duration_seconds: None,
            created_at: None,
            run: None,
            legacy_id: None,
            origin: None,
        }
    }

    /// With details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// With a status.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// With the number of records synced so far.
    #[must_use]
    pub fn with_records(mut self, records: i64) -> Self {
        self.records_synced = Some(records);
        self
    }

    /// With an error's code and message.
    #[must_use]
    pub fn with_error(mut self, code: impl Into<String>, message: impl Into<String>) -> Self {
        self.error_code = Some(code.into());
        self.error_message = Some(message.into());
        self
    }

    /// With a duration in seconds.
    #[must_use]
    pub fn with_duration(mut self, seconds: f64) -> Self {
        self.duration_seconds = Some(seconds);
        self
    }

    /// With the time at which it happened.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.created_at = Some(time);
        self
    }

    /// Whether it is dated more than a day ahead of `clock`. Such an event is taken; it then stands at the
    /// head of every list, and its run counts as silent from its append on.
    ///
    /// ```
    /// use synclog::{Company, Level, SyncEvent, Timestamp};
    ///
    /// let event = SyncEvent::new(Company::new("8f0c1d52", "102209.0", "Acme Traders"), Level::Info, "Sync started");
    /// let clock = Timestamp::now();
    /// assert!(!event.is_ahead(clock)); // it has no time yet: it takes that of its append
    /// assert!(event.at(clock.saturating_add_micros(25 * 3600 * 1_000_000)).is_ahead(clock));
    /// ```
    pub fn is_ahead(&self, clock: Timestamp) -> bool {
        self.created_at.is_some_and(|at| is_ahead(at, clock))
    }

    /// With the id of its run.
    #[must_use]
    pub fn with_run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }
}

/// Refuses what SQLite would not give back: NaN becomes NULL there, and -0.0 becomes 0.0 (P6).
pub(super) fn check_duration(seconds: f64) -> Result<()> {
    if !seconds.is_finite() {
        return Err(Error::codec("duration_seconds is not a finite number"));
    }
    if seconds == 0.0 && seconds.is_sign_negative() {
        return Err(Error::codec("duration_seconds is -0.0"));
    }
    Ok(())
}

/// Refuses an origin that no store can have given, or that a signed column cannot hold.
pub(super) fn check_origin(origin: Option<Origin>) -> Result<()> {
    match origin {
        Some(Origin { seq, .. }) if seq == 0 || i64::try_from(seq).is_err() => {
            Err(Error::codec("origin_seq is not a number from 1 to 9223372036854775807"))
        }
        _ => Ok(()),
    }
}

const fn text(name: &'static str) -> Column {
    Column::nullable(name, ColumnType::Text)
}

const fn required_text(name: &'static str) -> Column {
    Column::required(name, ColumnType::Text)
}

impl Event for SyncEvent {
    const KIND: u16 = 1;
    const VERSION: u16 = 1;
    const TABLE: Table = Table {
        name: "sync_logs",
        columns: &[
            required_text("company_guid"),
            required_text("company_alterid"),
            required_text("company_name"),
            required_text("log_level"),
            required_text("log_message"),
            text("log_details"),
            text("sync_status"),
            Column::nullable("records_synced", ColumnType::Integer),
            text("error_code"),
            text("error_message"),
            Column::nullable("duration_seconds", ColumnType::Real),
            required_text("created_at"),
            text("run"),
            Column::nullable("legacy_id", ColumnType::Integer),
            text("origin_store"),
            Column::nullable("origin_seq", ColumnType::Integer),
        ],
        indexes: &[
            Index {
                name: "sync_logs_company",
                columns: &["company_guid", "company_alterid", "created_at", "id"],
            },
            Index { name: "sync_logs_time", columns: &["created_at", "id"] },
            Index { name: "sync_logs_level", columns: &["log_level", "created_at", "id"] },
            Index { name: "sync_logs_status", columns: &["sync_status", "created_at", "id"] },
            Index { name: "sync_logs_run", columns: &["run"] },
        ],
    };

    fn prepare(&mut self, now: Timestamp) -> Result<()> {
        for (field, text) in [
            ("company_guid", &self.company.guid),
            ("company_alterid", &self.company.alterid),
            ("company_name", &self.company.name),
            ("log_message", &self.message),
        ] {
            if text.trim().is_empty() {
                return Err(Error::invalid(field, "is empty"));
            }
        }
        if self.run.as_ref().is_some_and(|run| run.trim().is_empty()) {
            return Err(Error::invalid("run", "is empty"));
        }
        if let Some(seconds) = &mut self.duration_seconds {
            if !seconds.is_finite() {
                return Err(Error::invalid("duration_seconds", "is not a finite number"));
            }
            *seconds += 0.0; // -0.0 becomes 0.0
        }
        check_origin(self.origin)
            .map_err(|_| Error::invalid("origin_seq", "is not a number from 1 to 9223372036854775807"))?;
        self.created_at.get_or_insert(now);
        Ok(())
    }

    fn encode(&self, version: u16) -> Result<Vec<u8>> {
        match version {
            1 => codec::encode(self),
            _ => Err(Error::codec(format!("there is no version {version} of a sync event"))),
        }
    }

    fn decode(version: u16, payload: &[u8]) -> Result<Self> {
        match version {
            1 => codec::decode(payload),
            _ => Err(Error::codec(format!("there is no version {version} of a sync event"))),
        }
    }

    fn to_row(&self) -> Vec<Value> {
        row::write(self)
    }

    fn from_row(row: &[Value]) -> Result<Self> {
        row::read(row)
    }

    /// A time that was left to `prepare` the first time matches whatever was filled in then.
    fn repeats(&self, stored: &Self) -> bool {
        let mut own = self.clone();
        own.created_at = own.created_at.or(stored.created_at);
        if let Some(seconds) = &mut own.duration_seconds {
            *seconds += 0.0;
        }
        own == *stored
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;

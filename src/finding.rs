//! What recovery, verify, replay and repair have to tell: one finding a line.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What kind of thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// An unfinished write at the log's end, as a crash leaves it: put aside, nothing acknowledged lost.
    TornTail,
    /// A batch whose last events never reached the disk: dropped whole, it was never acknowledged.
    UnfinishedBatch,
    /// Stray bytes where nothing had been written yet: put aside, nothing lost.
    DamagedFiller,
    /// One of the two copies of a segment's header is damaged; the other serves.
    DamagedHeaderCopy,
    /// A frame whose bytes are damaged.
    DamagedFrame,
    /// Events that the log must have held are not there.
    MissingEvents,
    /// A segment that must be there is not.
    MissingSegment,
    /// A segment of another store, out of chain, or of the wrong size.
    BadSegment,
    /// The newest segment was cut and is whole again, as far as rows and the file `tail` tell. Whether events
    /// stood behind those, nothing tells.
    CutSegment,
    /// A file in the log's directory that is no part of the log.
    UnknownFile,
    /// SQLite has seen events that the log does not hold and that its rows cannot prove.
    AppliedBeyondLog,
    /// A damaged frame that came back, bit for bit.
    HealedFrame,
    /// A deletion that was recorded in what is lost, and is recorded anew: what was deleted stays so.
    DeletionRecorded,
    /// Events that were lost and that somebody has given up: the log says so ever after.
    AcceptedLoss,
    /// The database file is not there.
    DatabaseMissing,
    /// The database is damaged, or is not one of ours.
    DatabaseDamaged,
    /// The database belongs to another store.
    DatabaseForeign,
    /// The tables are not as this version makes them.
    SchemaDiffers,
    /// An event without its row.
    RowMissing,
    /// A row that differs from its event.
    RowDiffers,
    /// A row that no event explains.
    RowUnknown,
    /// A row that still differs after it was healed, because of a trigger for example.
    RowUnhealable,
    /// Events that have no rows yet.
    Lag,
    /// An event of a kind or version that this program does not know: kept, not projected.
    UnknownEvent,
    /// What the database says it has applied does not fit its rows or the log.
    AppliedDiffers,
    /// The tables were made for another version of the events or of synclog, so their rows cannot be compared.
    /// Nothing is damaged: the next opening for writing makes them anew.
    TablesOutdated,
    /// Tables of another version were made anew from the log: an upgrade.
    TablesUpgraded,
    /// An event of a kind and version that this program knows and all the same cannot read: its own code
    /// refuses it, or panics, or makes a row that does not fit the table. Kept, not projected.
    UnreadableEvent,
    /// Rows, or the file `tail`, prove events that the log holds otherwise: parts of two copies of the store,
    /// each of which went on by itself.
    TwoHistories,
    /// The table of seqs without rows says so of seqs that have events: it is not believed.
    AbsenceUnproved,
    /// A trigger, an index or columns of somebody else's on a table of ours.
    ForeignObject,
}

impl FindingKind {
    /// The word for this kind in JSON output, such as `row_missing`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TornTail => "torn_tail",
            Self::UnfinishedBatch => "unfinished_batch",
            Self::DamagedFiller => "damaged_filler",
            Self::DamagedHeaderCopy => "damaged_header_copy",
            Self::DamagedFrame => "damaged_frame",
            Self::MissingEvents => "missing_events",
            Self::MissingSegment => "missing_segment",
            Self::BadSegment => "bad_segment",
            Self::CutSegment => "cut_segment",
            Self::UnknownFile => "unknown_file",
            Self::AppliedBeyondLog => "applied_beyond_log",
            Self::HealedFrame => "healed_frame",
            Self::DeletionRecorded => "deletion_recorded",
            Self::AcceptedLoss => "accepted_loss",
            Self::DatabaseMissing => "database_missing",
            Self::DatabaseDamaged => "database_damaged",
            Self::DatabaseForeign => "database_foreign",
            Self::SchemaDiffers => "schema_differs",
            Self::RowMissing => "row_missing",
            Self::RowDiffers => "row_differs",
            Self::RowUnknown => "row_unknown",
            Self::RowUnhealable => "row_unhealable",
            Self::Lag => "lag",
            Self::UnknownEvent => "unknown_event",
            Self::AppliedDiffers => "applied_differs",
            Self::TablesOutdated => "tables_outdated",
            Self::TablesUpgraded => "tables_upgraded",
            Self::UnreadableEvent => "unreadable_event",
            Self::TwoHistories => "two_histories",
            Self::AbsenceUnproved => "absence_unproved",
            Self::ForeignObject => "foreign_object",
        }
    }

    /// Whether it is about an event that has no row because this program cannot read it.
    pub(crate) fn is_unread(self) -> bool {
        matches!(self, Self::UnknownEvent | Self::UnreadableEvent)
    }

    /// What the finding means for the store as a whole.
    pub fn severity(self) -> Severity {
        match self {
            Self::DamagedFrame
            | Self::MissingEvents
            | Self::MissingSegment
            | Self::BadSegment
            | Self::CutSegment
            | Self::DamagedHeaderCopy
            | Self::DamagedFiller
            | Self::AppliedBeyondLog
            | Self::TwoHistories => Severity::LogDamaged,
            Self::DatabaseMissing
            | Self::DatabaseDamaged
            | Self::DatabaseForeign
            | Self::SchemaDiffers
            | Self::RowMissing
            | Self::RowDiffers
            | Self::RowUnknown
            | Self::RowUnhealable
            | Self::AppliedDiffers
            | Self::TablesOutdated
            | Self::AbsenceUnproved
            | Self::ForeignObject => Severity::ProjectionDiffers,
            Self::TornTail
            | Self::UnfinishedBatch
            | Self::UnknownFile
            | Self::HealedFrame
            | Self::DeletionRecorded
            | Self::AcceptedLoss
            | Self::Lag
            | Self::UnknownEvent
            | Self::TablesUpgraded
            | Self::UnreadableEvent => Severity::Note,
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Lawful after a crash, or already mended.
    Note,
    /// SQLite differs from the log; replay heals it.
    ProjectionDiffers,
    /// The log is damaged or events are missing; repair heals what rows can prove.
    LogDamaged,
}

/// One thing that was found, with its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was found.
    #[serde(rename = "finding")]
    pub kind: FindingKind,
    /// The event, or the first of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The last event, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
    /// The column, for a row that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The file. In JSON, what is no UTF-8 in its name is replaced by U+FFFD.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "lossy_path")]
    pub file: Option<PathBuf>,
    /// The offset in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// In words, with what to do where there is something to do.
    pub detail: String,
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn lossy_path<S: serde::Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

impl Finding {
    pub(crate) fn new(kind: FindingKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            seq: None,
            last_seq: None,
            column: None,
            file: None,
            offset: None,
            detail: detail.into(),
        }
    }

    #[must_use]
    pub(crate) fn seq(mut self, seq: u64) -> Self {
        self.seq = Some(seq);
        self
    }

    /// The seqs `first..=last`.
    #[must_use]
    pub(crate) fn seqs(mut self, first: u64, last: u64) -> Self {
        self.seq = Some(first);
        self.last_seq = (last > first).then_some(last);
        self
    }

    #[must_use]
    pub(crate) fn column(mut self, column: impl Into<String>) -> Self {
        self.column = Some(column.into());
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, file: impl Into<PathBuf>, offset: u64) -> Self {
        self.file = Some(file.into());
        self.offset = Some(offset);
        self
    }

    #[must_use]
    pub(crate) fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// How many events the finding is about, if it is about events: 1 for a single one.
    pub fn events(&self) -> u64 {
        match (self.seq, self.last_seq) {
            (Some(first), Some(last)) => last.saturating_sub(first).saturating_add(1),
            (Some(_), None) => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind.as_str().replace('_', " "))?;
        match (self.seq, self.last_seq) {
            (Some(first), Some(last)) => write!(f, ", events {first} to {last}")?,
            (Some(seq), None) => write!(f, ", event {seq}")?,
            _ => {}
        }
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        if let Some(file) = &self.file {
            write!(f, ", {}", file.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, ", offset {offset}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

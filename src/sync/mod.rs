//! Sync events: the built-in event type, and the handles that an application uses.
//!
//! [`SyncLog`] writes, [`SyncReader`] reads. Both stand on the engine, which knows nothing of
//! companies, levels or runs. Read next: `event.rs` for what an event is, `filter.rs` for queries.

mod codec;
mod event;
mod filter;
mod import;
mod import_log;
#[cfg(test)]
mod list_tests;
mod log;
mod row;
mod runs;

pub use event::{Company, Level, Origin, Status, SyncEvent};
pub use filter::{Filter, Key, PageCursor};
pub use import::{ExportLine, Extra, ImportReport, Rejection, SourceTime, TimeOffset};
#[cfg(any(test, fuzzing))]
pub(crate) use import::{
    ImportPlan, Matcher, Reading, Record, read_lines as read_import_lines, read_path as import_source, utc,
};
pub use import_log::{ImportOptions, ImportSource};
pub use log::{LogEntry, Run, SyncLog, SyncReader};
pub use runs::{RunFilter, RunState, RunSummary, STUCK_AFTER};

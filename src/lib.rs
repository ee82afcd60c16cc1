//! synclog keeps the history of sync runs (and, underneath, of any event type) in a checksummed
//! append-only log. When [`SyncLog::append`] returns, the event is on disk. SQLite is a view of the
//! log that anyone may query and anyone may delete: every row is read back after it was written, and
//! the view is mended from the log wherever it differs.
//!
//! ```
//! use synclog::{Company, Filter, Status, SyncLog};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path();
//! let log = SyncLog::open(dir)?;
//! let company = Company::new("8f0c1d52", "102209.0", "Acme Traders");
//!
//! let run = log.start_run(&company)?; // on disk when this returns
//! run.progress(300, "300 vouchers inserted")?;
//! run.fail("FETCH_ERROR", "connection timed out")?;
//!
//! let failed = log.reader()?.list(&Filter::new().status(Status::Failed))?;
//! assert_eq!(failed[0].event.error_code.as_deref(), Some("FETCH_ERROR"));
//! log.close()?;
//! # Ok::<(), synclog::Error>(())
//! ```
//!
//! # Where to go on
//!
//! - [`SyncLog`] writes sync events, [`SyncReader`] reads them; both are built on
//! - [`Store`] and [`Reader`], which take any type that implements [`Event`].
//! - [`Options`] has the few things that can be set, with their defaults.
//! - [`Error`] tells what went wrong, and [`Error::outcome`] how it ended for the event.
//! - The README has the promises P1 to P12 that comments and messages cite.
//!
//! # Features
//!
//! - `cli` (off by default): the command line `synclog`, with the crates that only it needs.
//!
//! The library prints nothing and keeps no global state. It reports through [`tracing`] events.
#![deny(unsafe_code)]

/// The examples in the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// The command line belongs to the binary; only the fuzzer reaches it through the library.
#[cfg(all(fuzzing, feature = "cli"))]
extern crate self as synclog;
mod absences;
mod anchor;
mod application;
#[cfg(all(fuzzing, feature = "cli"))]
#[allow(unreachable_patterns)]
mod cli;
mod codec;
mod disk;
mod erasures;
mod error;
mod event;
mod faithful;
mod finding;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod lock;
mod log;
mod projection;
#[cfg(any(test, fuzzing))]
mod proof;
mod replay;
mod room;
mod standing;
mod store;
mod store_id;
mod sync;
mod system;
mod threads;
mod time;

pub use codec::MAX_KEY_BYTES;
pub use error::{Error, Outcome, Result};
pub use event::{Column, ColumnType, Event, Index, Table, Value};
pub use finding::{Finding, FindingKind, Severity};
pub use projection::limit_sqlite_memory;
pub use replay::ReplayReport;
pub use store::{
    Item, Items, LogPosition, MAX_EVENT_BYTES, OpenReport, Options, Reader, Receipt, RepairReport, Store,
    Stored, Ticket, VerifySummary,
};
pub use store_id::StoreId;
pub use sync::{
    Company, ExportLine, Extra, Filter, ImportOptions, ImportReport, ImportSource, Key, Level, LogEntry,
    Origin, PageCursor, Rejection, Run, RunFilter, RunState, RunSummary, STUCK_AFTER, SourceTime, Status,
    SyncEvent, SyncLog, SyncReader, TimeOffset,
};
pub use time::Timestamp;

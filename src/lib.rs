//! synclog
#![deny(unsafe_code)]

mod codec;
mod disk;
mod error;
mod event;
mod finding;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod lock;
mod log;
mod projection;
mod replay;
#[cfg(test)]
mod simdisk;
mod store;
mod store_id;
mod sync;
mod time;

pub use codec::MAX_KEY_BYTES;
pub use error::{Error, Outcome, Result};
pub use event::{Column, ColumnType, Event, Index, Table, Value};
pub use finding::{Finding, FindingKind, Severity};
pub use replay::ReplayReport;
pub use store::{
    Item, Items, MAX_EVENT_BYTES, OpenReport, Options, Reader, Receipt, RepairReport, Store, Stored, Ticket,
    VerifySummary,
};
pub use store_id::StoreId;
pub use sync::{
    Company, ExportLine, Filter, ImportOptions, ImportReport, Key, Level, LogEntry, Origin, Rejection, Run,
    RunFilter, RunState, RunSummary, STUCK_AFTER, Status, SyncEvent, SyncLog, SyncReader, TimeOffset,
};
pub use time::Timestamp;

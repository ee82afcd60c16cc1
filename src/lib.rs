//! synclog
#![deny(unsafe_code)]

mod codec;
mod disk;
mod error;
mod event;
mod finding;
mod lock;
mod log;
mod projection;
mod replay;
mod store;
mod store_id;
mod time;

pub use error::{Error, Outcome, Result};
pub use event::{Column, ColumnType, Event, Index, Table, Value};
pub use finding::{Finding, FindingKind, Severity};
pub use codec::MAX_KEY_BYTES;
pub use replay::ReplayReport;
pub use store::{Item, Items, MAX_EVENT_BYTES, OpenReport, Options, Reader, Receipt, RepairReport, Store, Stored, Ticket, VerifySummary};
pub use store_id::StoreId;
pub use time::Timestamp;

//! synclog
#![deny(unsafe_code)]

mod disk;
mod error;
mod event;
mod finding;
mod lock;
mod log;
mod projection;
mod store_id;
mod time;

pub use error::{Error, Outcome, Result};
pub use event::{Column, ColumnType, Event, Index, Table, Value};
pub use finding::{Finding, FindingKind, Severity};
pub use store_id::StoreId;
pub use time::Timestamp;

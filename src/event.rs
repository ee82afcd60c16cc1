//! What the engine needs to know of an event type, and the values a row is made of.
//!
//! An event meets the engine as bytes (its payload, in the log) and as a row (in the projection).
//! Both directions are the event type's own: the log never sees a column, and the projection
//! never sees a payload. Read next: [`crate::sync::SyncEvent`], the built-in event type.

use std::fmt::Debug;

use crate::error::Error;
use crate::time::Timestamp;

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A finite number; -0.0 is not allowed, because SQLite keeps it as 0.0.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Integer)
    }
}

impl From<Option<f64>> for Value {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Self::Null, Self::Real)
    }
}

/// The declared type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `INTEGER`
    Integer,
    /// `REAL`
    Real,
    /// `TEXT`
    Text,
    /// `BLOB`
    Blob,
}

/// One column of an event's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Letters, digits and underscores, not starting with a digit.
    pub name: &'static str,
    /// The declared type.
    pub kind: ColumnType,
    /// Whether the column is declared `NOT NULL`.
    pub not_null: bool,
}

impl Column {
    /// A column that may hold NULL.
    pub const fn nullable(name: &'static str, kind: ColumnType) -> Self {
        Self { name, kind, not_null: false }
    }

    /// A column declared `NOT NULL`.
    pub const fn required(name: &'static str, kind: ColumnType) -> Self {
        Self { name, kind, not_null: true }
    }
}

/// An index over columns of an event's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// The index's name.
    pub name: &'static str,
    /// The columns, in order; `id` may be among them.
    pub columns: &'static [&'static str],
}

/// The table that an event type is projected into.
///
/// The engine adds three columns of its own: `id` (the seq, the primary key) before the event's
/// columns, `idempotency_key` and `frame` (its frame's header and salt, kept so that a damaged log can be
/// healed from its rows) behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The table's name; names that start with `synclog_` or `sqlite_` are taken.
    pub name: &'static str,
    /// The event's columns.
    pub columns: &'static [Column],
    /// Indexes beside the primary key.
    pub indexes: &'static [Index],
}

/// An event type that a [`crate::Store`] can keep.
///
/// ```
/// use synclog::{Column, ColumnType, Error, Event, Table, Timestamp, Value};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Reading { celsius: f64 }
///
/// impl Event for Reading {
///     const KIND: u16 = 100;
///     const VERSION: u16 = 1;
///     const TABLE: Table = Table {
///         name: "readings",
///         columns: &[Column::required("celsius", ColumnType::Real)],
///         indexes: &[],
///     };
///     fn prepare(&mut self, _now: Timestamp) -> Result<(), Error> {
///         if !self.celsius.is_finite() {
///             return Err(Error::invalid("celsius", "is not a finite number"));
///         }
///         self.celsius += 0.0; // -0.0 becomes 0.0
///         Ok(())
///     }
///     fn encode(&self, _version: u16) -> Result<Vec<u8>, Error> {
///         Ok(self.celsius.to_le_bytes().to_vec())
///     }
///     fn decode(_version: u16, payload: &[u8]) -> Result<Self, Error> {
///         let bytes = payload.try_into().map_err(|_| Error::codec("not 8 bytes"))?;
///         Ok(Self { celsius: f64::from_le_bytes(bytes) })
///     }
///     fn to_row(&self) -> Vec<Value> {
///         vec![Value::Real(self.celsius)]
///     }
///     fn from_row(row: &[Value]) -> Result<Self, Error> {
///         match row {
///             [Value::Real(celsius)] => Ok(Self { celsius: *celsius }),
///             _ => Err(Error::codec("not a reading")),
///         }
///     }
/// }
/// ```
///
/// A function that panics ends only the call that needed it: an append is refused with
/// [`Error::Application`], and an event of the log that can no longer be read is kept and reported
/// ([`FindingKind::UnreadableEvent`](crate::FindingKind::UnreadableEvent)), while the store goes on without
/// its row. (A program that is built to abort on panics ends all the same.)
pub trait Event: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// The number of this event type, kept in every frame. 1 is [`SyncEvent`](crate::SyncEvent), 0 is refused;
    /// an application picks its own and keeps it. A store is of one event type, that of the oldest event in its
    /// log: for another one it is not opened ([`Error::OtherEvents`]), not even for reading. Events of others
    /// that older versions of synclog have let in stay in its log and have no rows.
    const KIND: u16;
    /// The version of the encoding that is written today. Starts at 1; 0 is refused.
    const VERSION: u16;
    /// The table that events of this type are projected into. Its own name and those of columns and indexes are
    /// up to 64 ASCII letters, digits and underscores, do not start with a digit, `sqlite_` or `synclog_`, and
    /// are no words of SQL; the columns `id`, `idempotency_key` and `frame` are the engine's. A store is opened
    /// only where SQLite can make the table.
    const TABLE: Table;

    /// Fills in defaults, makes values canonical and refuses what must not be stored. Called once,
    /// before the event is encoded; an error means that nothing was written. After it, encoding and
    /// decoding, and going through a row, must each give back an equal event, and the row must fit
    /// [`Event::TABLE`]: an append tries both, and refuses an event that does not come back.
    fn prepare(&mut self, now: Timestamp) -> Result<(), Error>;

    /// The payload in the encoding of `version`. [`Event::VERSION`] is used for appends; older ones
    /// when a damaged frame is healed from its row. An error where this event cannot be expressed
    /// in that version.
    fn encode(&self, version: u16) -> Result<Vec<u8>, Error>;

    /// An event from its payload, upcast from `version` to the present type. Every byte must be
    /// accounted for: trailing bytes are an error, and no payload may cause a panic.
    fn decode(version: u16, payload: &[u8]) -> Result<Self, Error>;

    /// The values of [`Table::columns`], in that order and each of its column's type or, where that is allowed,
    /// NULL.
    fn to_row(&self) -> Vec<Value>;

    /// The event from the values of [`Table::columns`]; the reverse of [`Event::to_row`].
    fn from_row(row: &[Value]) -> Result<Self, Error>;

    /// Whether an append of `self` (before [`Event::prepare`]) under an idempotency key repeats the
    /// append that `stored` came from. Override it where `prepare` fills in a time or a random id.
    fn repeats(&self, stored: &Self) -> bool {
        self == stored
    }
}

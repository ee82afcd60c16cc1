//! One row: values to and from SQLite, and the comparison of every column (P6).

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ToSql};

use crate::event::Value;

/// What the `frame` column keeps of an event's frame: its header of 48 bytes and its salt of 8.
pub(crate) type FrameKeep = [u8; 56];

/// What one event looks like as a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    /// The event's own columns, in the order of its table.
    pub(crate) values: Vec<Value>,
    pub(crate) key: Option<String>,
    /// What the event's frame needs to be built again from the row.
    pub(crate) frame: FrameKeep,
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Value {
    /// A value as SQLite holds it. Text that is no UTF-8 comes back as a blob, which no text equals.
    pub(crate) fn from_ref(found: ValueRef<'_>) -> Self {
        match found {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(text.to_owned()),
                // Text that is none is kept as it is.
                Err(_) => Self::Blob(bytes.to_vec()),
            },
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }

    fn is(&self, found: ValueRef<'_>) -> bool {
        match (self, found) {
            (Self::Null, ValueRef::Null) => true,
            (Self::Integer(own), ValueRef::Integer(found)) => *own == found,
            (Self::Real(own), ValueRef::Real(found)) => own.to_bits() == found.to_bits(),
            (Self::Text(own), ValueRef::Text(found)) => own.as_bytes() == found,
            (Self::Blob(own), ValueRef::Blob(found)) => own == found,
            _ => false,
        }
    }
}

fn key_is(key: Option<&str>, found: ValueRef<'_>) -> bool {
    match (key, found) {
        (None, ValueRef::Null) => true,
        (Some(own), ValueRef::Text(found)) => own.as_bytes() == found,
        _ => false,
    }
}

/// About the bytes that values take.
fn len<'a>(values: impl IntoIterator<Item = &'a Value>) -> usize {
    let bytes = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    values.into_iter().map(|value| size_of::<Value>() + bytes(value)).sum()
}

impl Row {
    /// About the bytes that it takes.
    pub(crate) fn len(&self) -> usize {
        len(&self.values)
    }

    /// Binds all columns in the schema's order.
    pub(crate) fn bind(&self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        statement.raw_bind_parameter(1, self.seq as i64)?;
        for (index, value) in self.values.iter().enumerate() {
            statement.raw_bind_parameter(index + 2, value)?;
        }
        statement.raw_bind_parameter(self.values.len() + 2, &self.key)?;
        statement.raw_bind_parameter(self.values.len() + 3, &self.frame[..])
    }

    /// The indexes of the columns in which a row of the database differs.
    pub(crate) fn differing(&self, found: &rusqlite::Row<'_>) -> rusqlite::Result<Vec<usize>> {
        let mut columns = Vec::new();
        if !Value::Integer(self.seq as i64).is(found.get_ref(0)?) {
            columns.push(0);
        }
        for (index, value) in self.values.iter().enumerate() {
            if !value.is(found.get_ref(index + 1)?) {
                columns.push(index + 1);
            }
        }
        let key_at = self.values.len() + 1;
        if !key_is(self.key.as_deref(), found.get_ref(key_at)?) {
            columns.push(key_at);
        }
        if found.get_ref(key_at + 1)? != ValueRef::Blob(&self.frame) {
            columns.push(key_at + 1);
        }
        Ok(columns)
    }
}

/// A row as the database has it, whatever is in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoundRow {
    pub(crate) id: i64,
    /// The event's own columns.
    pub(crate) values: Vec<Value>,
    pub(crate) key: Value,
    pub(crate) frame: Value,
}

impl FoundRow {
    /// About the bytes that it takes.
    pub(crate) fn len(&self) -> usize {
        len(self.values.iter().chain([&self.key, &self.frame]))
    }

    pub(crate) fn read(row: &rusqlite::Row<'_>, columns: usize) -> rusqlite::Result<Self> {
        let value = |index: usize| Ok::<_, rusqlite::Error>(Value::from_ref(row.get_ref(index)?));
        Ok(Self {
            id: row.get(0)?,
            values: (1..columns - 2).map(value).collect::<Result<_, _>>()?,
            key: value(columns - 2)?,
            frame: value(columns - 1)?,
        })
    }
}

//! The simplest event: a number.

use synclog::{Column, ColumnType, Error, Event, Table, Timestamp, Value};

/// An event of this kind, in the table of this name.
#[derive(Clone, Debug, PartialEq)]
pub struct Number<const KIND: u16, const TABLE: usize>(pub i64);

const TABLES: [&str; 3] = ["readings", "sync_logs", "order"];
pub const READINGS: usize = 0;
/// As the table of sync events.
pub const SYNC_LOGS: usize = 1;
/// A word of SQL, which no table can have for a name.
pub const ORDER: usize = 2;

impl<const NUMBER: u16, const NAME: usize> Event for Number<NUMBER, NAME> {
    const KIND: u16 = NUMBER;
    const VERSION: u16 = 1;
    const TABLE: Table = Table {
        name: TABLES[NAME],
        columns: &[Column::required("number", ColumnType::Integer)],
        indexes: &[],
    };

    fn prepare(&mut self, _now: Timestamp) -> Result<(), Error> {
        Ok(())
    }

    fn encode(&self, _version: u16) -> Result<Vec<u8>, Error> {
        Ok(self.0.to_le_bytes().to_vec())
    }

    fn decode(_version: u16, payload: &[u8]) -> Result<Self, Error> {
        let bytes = payload.try_into().map_err(|_| Error::codec("not 8 bytes"))?;
        Ok(Self(i64::from_le_bytes(bytes)))
    }

    fn to_row(&self) -> Vec<Value> {
        vec![Value::Integer(self.0)]
    }

    fn from_row(row: &[Value]) -> Result<Self, Error> {
        match row {
            [Value::Integer(number)] => Ok(Self(*number)),
            _ => Err(Error::codec("not a number")),
        }
    }
}

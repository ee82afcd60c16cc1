//! What the comparison of the two readers shares: an event type that shows its payload, and what each
//! reader says about a store.

pub mod damage;
pub mod says;
pub mod stores;

use synclog::{Column, ColumnType, Error, Event, Table, Timestamp, Value};

/// An event that is its bytes. `VERSION` can be told from outside, so that a store can hold events that
/// a reader of version 1 does not know.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw<const VERSION: u16>(pub Vec<u8>);

impl<const V: u16> Event for Raw<V> {
    const KIND: u16 = 1;
    const VERSION: u16 = V;
    const TABLE: Table =
        Table { name: "raw", columns: &[Column::required("bytes", ColumnType::Blob)], indexes: &[] };

    fn prepare(&mut self, _now: Timestamp) -> Result<(), Error> {
        Ok(())
    }

    fn encode(&self, _version: u16) -> Result<Vec<u8>, Error> {
        Ok(self.0.clone())
    }

    fn decode(version: u16, payload: &[u8]) -> Result<Self, Error> {
        if version > V { Err(Error::codec("is newer")) } else { Ok(Self(payload.to_vec())) }
    }

    fn to_row(&self) -> Vec<Value> {
        vec![Value::Blob(self.0.clone())]
    }

    fn from_row(row: &[Value]) -> Result<Self, Error> {
        match row {
            [Value::Blob(bytes)] => Ok(Self(bytes.clone())),
            _ => Err(Error::codec("not bytes")),
        }
    }
}

/// Random numbers from a seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

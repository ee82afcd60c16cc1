//! The command line on a store of another event type than the history of sync runs.
#![cfg(feature = "cli")]

mod cli_support;

use cli_support::{Bench, append_args};
use synclog::{Column, ColumnType, Error, Event, Options, Store, Table, Timestamp, Value};

/// What somebody else's program keeps, in a table of the same name.
#[derive(Clone, Debug, PartialEq)]
struct Number(i64);

impl Event for Number {
    const KIND: u16 = 4000;
    const VERSION: u16 = 1;
    const TABLE: Table = Table {
        name: "sync_logs",
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
        payload
            .try_into()
            .map(|bytes| Self(i64::from_le_bytes(bytes)))
            .map_err(|_| Error::codec("not 8 bytes"))
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

#[test]
fn every_command_leaves_a_store_of_another_type_alone_and_ends_with_14() {
    let append = append_args("m1");
    let commands: [&[&str]; 15] = [
        &append,
        &["append", "--stdin"],
        &["list"],
        &["runs"],
        &["tail"],
        &["status"],
        &["export"],
        &["verify"],
        &["verify", "--log-only"],
        &["replay"],
        &["replay", "--rebuild"],
        &["replay", "--dry-run"],
        &["repair"],
        &["repair", "--dry-run"],
        &["repair", "--trust-log"],
    ];
    for events in [0, 3] {
        let bench = Bench::new();
        let store = Store::<Number>::open(bench.dir(), Options::default()).unwrap();
        for number in 0..events {
            store.append(Number(number)).unwrap();
        }
        store.close().unwrap();
        let before = bench.bytes();
        for args in commands {
            let done = bench.run(args);
            assert_eq!(done.code, Some(14), "{args:?}: {}{}", done.out, done.err);
            assert!(done.out.is_empty(), "{args:?}: {}", done.out);
            assert!(done.err.contains("events of kind 4000"), "{args:?}: {}", done.err);
            assert!(done.err.contains("hint: nothing was touched"), "{args:?}: {}", done.err);
            assert!(bench.bytes() == before, "{args:?}");
        }
        assert_eq!(Store::<Number>::open(bench.dir(), Options::default()).unwrap().last_seq(), events as u64);
    }
}
